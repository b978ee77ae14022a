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
 * The program answers one question at a time. The others wait here, so that a new picture goes before views of the old.
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
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const waiting = [];
  let asking = false;
  let next = 0;

  function proceed() {
    const question = asking ? undefined : waiting.shift();
    if (!question) return;
    asking = true;
    socket.send(question);
  }

  /** @type {Source["ask"]} */
  function ask(header, arrays = {}) {
    const id = next++;
    return new Promise((done, failed) => {
      open.set(id, { done, failed });
      const question = pack({ ...header, id }, arrays);
      if (header.ask === "look") waiting.unshift(question);
      else waiting.push(question);
      proceed();
    });
  }

  socket.onmessage = (event) => {
    asking = false;
    proceed();
    const message = unpack(event.data);
    const asked = open.get(message.header.id);
    open.delete(message.header.id);
    if (!asked) return;
    if (message.header.error) asked.failed(new Refusal(message.header.error));
    else asked.done(message);
  };
  return new Promise((done) => {
    socket.onopen = () => done({ ask, live: true, channel: () => 0, measured: () => true });
    socket.onclose = () => {
      ended("The program behind this page has ended. What is shown stays; start it anew to go on.");
    };
  });
}
