// Where answers come from: the program behind the page, over one WebSocket.

import { pack, unpack } from "page/message.js";

/**
 * @typedef {import("page/message.js").Message} Message
 * @typedef {{ask: (header: Record<string, any>, arrays?: Record<string, {data: Uint8Array, shape: number[]}>) =>
 *   Promise<Message>, live: boolean, channel: (node: number) => number, measured: (node: number) => boolean}} Source
 *
 * `channel` is the map of a layer that is shown first; `measured` says whether the excitation of a layer's filters can
 * be shown.
 */

/** A refusal of the program's, in a sentence for people. */
export class Refusal extends Error {}

/**
 * @param {(sentence: string) => void} ended Told once, when the program is there no more.
 * @returns {Promise<Source>}
 */
export function connect(ended) {
  const url = new URL("socket", location.href);
  url.protocol = "ws:";
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  /** @type {Map<number, {done: (m: Message) => void, failed: (e: Error) => void}>} */
  const open = new Map();
  let next = 0;

  /** @type {Source["ask"]} */
  function ask(header, arrays = {}) {
    const id = next++;
    return new Promise((done, failed) => {
      open.set(id, { done, failed });
      socket.send(pack({ ...header, id }, arrays));
    });
  }

  socket.onmessage = (event) => {
    const message = unpack(event.data);
    const waiting = open.get(message.header.id);
    open.delete(message.header.id);
    if (!waiting) return;
    if (message.header.error) waiting.failed(new Refusal(message.header.error));
    else waiting.done(message);
  };
  return new Promise((done) => {
    socket.onopen = () => done({ ask, live: true, channel: () => 0, measured: () => true });
    socket.onclose = () => {
      ended("The program behind this page has ended. What is shown stays; start it anew to go on.");
    };
  });
}
