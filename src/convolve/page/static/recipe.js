// In a file: what a value is made of, put together from its layer's recipe and the maps that the file holds (recipe.py).

import { placeOf } from "page/state.js";

/**
 * @typedef {import("page/message.js").Message} Message
 * @typedef {import("page/message.js").Tensor} Tensor
 * @typedef {(place: number, channel: number) => Tensor} Maps A whole map of a node or, below 0, of an input.
 */

/**
 * What `Traced.pixel` would say, as the program sends it.
 * @param {import("page/state.js").Net} net
 * @param {Message} recipe
 * @param {number} node
 * @param {number[]} position
 * @param {Maps} maps
 * @returns {Message}
 */
export function composed(net, { header, arrays }, node, position, maps) {
  const channel = position[position.length - 1];
  const at = position.slice(0, -1);
  /** @param {number} place */
  const here = (place) => lookup(maps(place, channel), at, channel);
  /** @param {string} name */
  const own = (name) => arrays[name].data[channel];
  const sources = header.made.sources.map((/** @type {string} */ s) => placeOf(net, s));
  const value = here(node);
  const made = { ...header.made };
  /** @type {Record<string, Tensor>} */
  const told = {};
  if (made.how === "products" || made.how === "pooled") {
    Object.assign(told, window(header, arrays, net, sources[0], position, maps));
    if (made.how === "products") Object.assign(made, { bias: own("bias"), first_channel: own("first_channel") });
    else Object.assign(made, { channel: own("channel") }, pooled(made, told));
  } else if (made.how === "normalised") {
    const [mean, variance, by, shift] = ["mean", "variance", "by", "shift"].map(own);
    const x = here(sources[0]);
    const factor = by / Math.sqrt(variance + made.epsilon);
    const scale = (Math.abs(x) + Math.abs(mean)) * Math.abs(factor) + Math.abs(shift);
    Object.assign(made, { x, mean, variance, by, shift, total: (x - mean) * factor + shift, scale });
  } else if (made.how === "joined") {
    const terms = made.names.map((/** @type {string} */ name) => here(placeOf(net, name)));
    const sum = terms.reduce((/** @type {number} */ a, /** @type {number} */ b) => (made.function === "add" ? a + b : a * b));
    const total = ["add", "multiply"].includes(made.function) ? sum : value;
    Object.assign(made, { terms, total, scale: Math.max(...terms.map(Math.abs), Math.abs(value)) });
  } else if (made.how === "mapped") {
    const x = here(sources[0]);
    Object.assign(made, { x, y: value, total: value, scale: Math.max(Math.abs(x), Math.abs(value)) });
  } else if (made.how === "taken") {
    const rank = arrays.position?.shape[1] ?? 0;
    const from = arrays.position ? Array.from(arrays.position.data.slice(channel * rank, (channel + 1) * rank)) : position;
    const x = lookup(maps(sources[0], from[from.length - 1]), from.slice(0, -1), from[from.length - 1]);
    Object.assign(made, { position: from, x, total: x, scale: Math.abs(x) });
  } else {
    Object.assign(made, { y: value, total: value, scale: Math.abs(value) });
  }
  const after = header.after.map((/** @type {{layer: string}} */ step) => ({ ...step, value: here(placeOf(net, step.layer)) }));
  const pixel = { layer: net.nodes[node].path, kind: header.kind, position, value, made, after };
  return { header: { node, pixel }, arrays: told };
}

/**
 * A map's number at a position; a row of values, which is one map, has its units in scan order.
 * @param {Tensor} map
 * @param {number[]} at
 * @param {number} unit
 */
function lookup({ data, shape }, at, unit) {
  return data[at.length ? at.reduce((flat, i, d) => flat * shape[d] + i, 0) : unit];
}

/**
 * The patch that a window reads, its weights, where its taps lie and which are inside.
 * @param {Record<string, any>} header
 * @param {Record<string, Tensor>} arrays
 * @param {import("page/state.js").Net} net
 * @param {number} source
 * @param {number[]} position
 * @param {Maps} maps
 * @returns {Record<string, Tensor>}
 */
function window(header, arrays, net, source, position, maps) {
  const channel = position[position.length - 1];
  const pools = header.made.how === "pooled";
  const rank = position.length - 1;
  const kernel = Array.from({ length: arrays.places0 ? rank : 0 }, (_, d) => arrays[`places${d}`].shape[1]);
  const taps = kernel.reduce((a, b) => a * b, 1);
  const { weights } = arrays;
  const channels = pools ? 1 : weights.shape[weights.shape.length - 1];
  const first = arrays[pools ? "channel" : "first_channel"].data[channel];
  const places = new Int32Array(taps * kernel.length);
  const inside = new Uint8Array(taps).fill(1);
  const patch = new Float64Array(taps * channels);
  for (let tap = 0; tap < taps; tap++) {
    for (let d = kernel.length - 1, left = tap; d >= 0; left = Math.floor(left / kernel[d--])) {
      const row = position[d] * kernel[d] + (left % kernel[d]);
      places[tap * kernel.length + d] = arrays[`places${d}`].data[row];
      inside[tap] &= arrays[`inside${d}`].data[row];
    }
    const at = Array.from(places.subarray(tap * kernel.length, (tap + 1) * kernel.length));
    for (let c = 0; inside[tap] && c < channels; c++) {
      patch[tap * channels + c] = kernel.length ? lookup(maps(source, first + c), at, 0) : lookup(maps(source, c), [], c);
    }
  }
  const shapes = pools ? kernel : [...kernel, channels];
  const size = taps * channels;
  return {
    patch: { data: patch, shape: shapes },
    places: { data: places, shape: [...kernel, kernel.length] },
    inside: { data: inside, shape: kernel },
    ...(pools ? {} : { weights: { data: Float64Array.from(weights.data.subarray(channel * size, (channel + 1) * size)), shape: shapes } }),
  };
}

/**
 * The winner and the result of a pool, from the numbers that are shown.
 * @param {any} made
 * @param {Record<string, Tensor>} shown
 */
function pooled(made, { patch, inside }) {
  const read = Array.from(patch.data, (x, i) => (inside.data[i] ? x : -Infinity));
  if (made.kind === "max") {
    const total = Math.max(...read);
    let flat = read.indexOf(total);
    const winner = patch.shape.map((n, d) => Math.floor(flat / patch.shape.slice(d + 1).reduce((a, b) => a * b, 1)) % n);
    return { winner, total, scale: Math.abs(total) };
  }
  const sum = (/** @type {(x: number) => number} */ f) => read.reduce((a, x) => a + (x > -Infinity ? f(x) : 0), 0) / made.divisor;
  return { winner: null, total: sum((x) => x), scale: sum(Math.abs) };
}
