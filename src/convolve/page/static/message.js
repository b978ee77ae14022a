// Messages between page and server: a header in JSON, then arrays as they lie in memory (see message.py).

/**
 * @typedef {Uint8Array | Int8Array | Int32Array | Float32Array | Float64Array} Numbers
 * @typedef {{data: Numbers, shape: number[]}} Tensor
 * @typedef {{header: Record<string, any>, arrays: Record<string, Tensor>}} Message
 */

/** @type {Record<string, any>} */
const TYPES = { u1: Uint8Array, i1: Int8Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
const ALIGNED = 8;

/**
 * @param {ArrayBuffer} buffer
 * @returns {Message}
 */
export function unpack(buffer) {
  const start = 4 + new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, start - 4)));
  /** @type {Record<string, Tensor>} */
  const arrays = {};
  for (const { name, dtype, shape, offset } of header.arrays) {
    const count = shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
    arrays[name] = { data: new TYPES[dtype](buffer, start + offset, count), shape };
  }
  return { header, arrays };
}

/**
 * A question with arrays of bytes.
 * @param {Record<string, any>} header
 * @param {Record<string, {data: Uint8Array, shape: number[]}>} arrays
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function pack(header, arrays) {
  let offset = 0;
  const listed = Object.entries(arrays).map(([name, { data, shape }]) => {
    const entry = { name, dtype: "u1", shape, offset };
    offset += Math.ceil(data.length / ALIGNED) * ALIGNED;
    return entry;
  });
  let head = new TextEncoder().encode(JSON.stringify({ ...header, arrays: listed }));
  const start = Math.ceil((head.length + 4) / ALIGNED) * ALIGNED;
  const made = new Uint8Array(start + offset).fill(32);
  new DataView(made.buffer).setUint32(0, start - 4, true);
  made.set(head, 4);
  listed.forEach((entry) => made.set(arrays[entry.name].data, start + entry.offset));
  return made;
}
