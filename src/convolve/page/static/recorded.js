// Where answers come from in a file: they were all given beforehand.

import { Refusal } from "page/source.js";
import { unpack } from "page/message.js";

/**
 * @typedef {import("page/message.js").Message} Message
 * @typedef {import("page/source.js").Source} Source
 */

const ALIGNED = 8;
const MISSING = "This file does not hold that. `convolve look` with the model shows all of it.";

/**
 * @param {string} text Answers behind each other, compressed, in base64.
 * @returns {Promise<Source>}
 */
export async function recorded(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  /** @type {Map<string, Message>} */
  const known = new Map();
  /** @type {Map<string, number[][]>} Positions that are explained, by node and channel. */
  const explained = new Map();
  for (let at = 0; at < buffer.byteLength; ) {
    const size = Number(new DataView(buffer).getBigUint64(at, true));
    const message = unpack(buffer.slice(at + ALIGNED, at + ALIGNED + size));
    known.set(message.header.asked, message);
    at += ALIGNED + size;
    if (message.header.ask === "pixel") {
      const { node, pixel } = message.header;
      const key = `${node} ${pixel.position.at(-1)}`;
      explained.set(key, [...(explained.get(key) ?? []), pixel.position]);
    }
  }

  /** @param {Record<string, any>} header */
  function look(header) {
    const found = known.get(JSON.stringify(header, Object.keys(header).sort()));
    if (!found) throw new Refusal(MISSING);
    return found;
  }

  /** @type {Source["ask"]} */
  async function ask(header) {
    if (header.ask === "thumbnails") {
      const each = header.nodes.map((/** @type {number} */ node) => look({ ...header, nodes: [node] }));
      return {
        header: { nodes: header.nodes, scales: each.map((/** @type {Message} */ m) => m.header.scales[0]) },
        arrays: Object.assign({}, ...each.map((/** @type {Message} */ m) => m.arrays)),
      };
    }
    if (header.ask === "pixel") {
      const near = nearest(explained.get(`${header.node} ${header.position.at(-1)}`) ?? [], header.position);
      return look({ ...header, position: near ?? header.position });
    }
    return look(header);
  }

  /** The map that most is known of. @param {number} node */
  function channel(node) {
    let [best, most] = [0, 0];
    for (const [key, positions] of explained) {
      const [of, channel] = key.split(" ").map(Number);
      if (of === node && positions.length > most) [best, most] = [channel, positions.length];
    }
    return best;
  }
  return { ask, live: false, channel };
}

/**
 * @param {number[][]} positions
 * @param {number[]} wanted
 */
function nearest(positions, wanted) {
  let best = null;
  let least = Infinity;
  for (const position of positions) {
    const distance = position.reduce((sum, n, d) => sum + (n - wanted[d]) ** 2, 0);
    if (distance < least) [best, least] = [position, distance];
  }
  return best;
}
