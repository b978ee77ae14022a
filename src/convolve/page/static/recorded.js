// Where answers come from in a file: they were all given beforehand.

import { composed } from "page/recipe.js";
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
  function find(header) {
    return known.get(JSON.stringify(header, Object.keys(header).sort()));
  }

  /** @param {Record<string, any>} header */
  function look(header) {
    const found = find(header);
    if (!found) throw new Refusal(MISSING);
    return found;
  }

  const net = /** @type {import("page/state.js").Net} */ (/** @type {unknown} */ (look({ ask: "net" }).header));

  /** @type {import("page/recipe.js").Maps} */
  function maps(place, channel) {
    if (place >= 0) return look({ ask: "map", node: place, channel: net.nodes[place].shape.length > 1 ? channel : 0 }).arrays.map;
    const { data, shape } = look({ ask: "look", sample: 0 }).arrays[`picture${-1 - place}`];
    const channels = shape[shape.length - 1];
    if (shape.length < 2) return { data, shape };
    return { data: Float32Array.from({ length: data.length / channels }, (_, i) => data[i * channels + channel]), shape: shape.slice(0, -1) };
  }

  /**
   * What is kept of whole volumes, at one slice.
   * @param {Record<string, any>} header
   * @param {Record<string, number>} spatial The first dimension of positions of each array that has them.
   */
  function slice(header, spatial) {
    const { depth, ...all } = header;
    const found = look(all);
    const arrays = { ...found.arrays };
    for (const [name, first] of Object.entries(spatial)) if (arrays[name]) arrays[name] = sliced(arrays[name], first, depth);
    return { header: found.header, arrays };
  }

  /** @type {Source["ask"]} */
  async function ask({ input, ...header }) {
    if (header.ask === "thumbnails") {
      const each = header.nodes.map((/** @type {number} */ node) => slice({ ...header, nodes: [node] }, { [String(node)]: 1 }));
      return {
        header: { nodes: header.nodes, scales: each.map((/** @type {Message} */ m) => m.header.scales[0]) },
        arrays: Object.assign({}, ...each.map((/** @type {Message} */ m) => m.arrays)),
      };
    }
    if (header.ask === "pixel") {
      const recipe = find({ ask: "recipe", node: header.node });
      if (recipe) return composed(net, recipe, header.node, header.position, maps);
      const near = nearest(explained.get(`${header.node} ${header.position.at(-1)}`) ?? [], header.position);
      return look({ ...header, position: near ?? header.position });
    }
    if (header.ask === "map") return slice(header, { map: 0 });
    if (header.ask === "compare") return slice(header, { maps_a: 1, maps_b: 1 });
    if (header.ask === "excitation") return chosenOf(look({ ask: "excitation", node: header.node }), header.filters);
    if (header.ask !== "layer") return look(input ? { ...header, input } : header);
    const found = slice(header, { maps: 1 });
    const own = Object.entries(found.arrays).filter(([name]) => !input || !name.startsWith("sees")); // kept of the first
    return { header: found.header, arrays: Object.fromEntries(own) };
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
  const measured = new Set([...known.values()].filter((m) => m.header.ask === "excitation").map((m) => m.header.node));
  return { ask, live: false, channel, measured: (node) => measured.has(node) };
}

/**
 * The part of what was measured that is about some filters.
 * @param {Message} found
 * @param {number[]} filters
 * @returns {Message}
 */
function chosenOf({ header, arrays }, filters) {
  const rows = filters.map((f) => header.filters.indexOf(f)).filter((row) => row >= 0);
  const parts = Object.entries(arrays).map(([name, { data, shape }]) => {
    const size = data.length / shape[0];
    const made = /** @type {any} */ (data.slice(0, rows.length * size));
    rows.forEach((row, i) => made.set(data.subarray(row * size, (row + 1) * size), i * size));
    return [name, { data: made, shape: [rows.length, ...shape.slice(1)] }];
  });
  return { header: { ...header, filters: rows.map((row) => header.filters[row]) }, arrays: Object.fromEntries(parts) };
}

/**
 * The last two of the dimensions from `first` on, at a part of those before them.
 * @param {import("page/message.js").Tensor} tensor
 * @param {number} first
 * @param {number} depth
 * @returns {import("page/message.js").Tensor}
 */
function sliced({ data, shape }, first, depth) {
  if (shape.length - first < 3) return { data, shape };
  const [outer, count, inner] = [shape.slice(0, first), shape[first], shape.slice(first + 1)];
  const size = inner.reduce((a, b) => a * b, 1);
  const at = Math.floor(depth * (count - 1) + 0.5);
  const blocks = outer.reduce((a, b) => a * b, 1);
  const made = /** @type {any} */ (data.slice(0, blocks * size));
  for (let i = 0; i < blocks; i++) made.set(data.subarray((i * count + at) * size, (i * count + at + 1) * size), i * size);
  return sliced({ data: made, shape: [...outer, ...inner] }, first, depth);
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
