// Maps, signals and pictures on canvases, one array element a pixel; CSS makes them large.

import { diverging, palette } from "page/colour.js";

/** @typedef {import("page/message.js").Numbers} Numbers */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 * @returns {ImageData}
 */
function begun(canvas, width, height) {
  // Setting a size, even the same, makes the canvas anew.
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return new ImageData(width, height);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageData} image
 */
function put(canvas, image) {
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
}

/**
 * A map of bytes, 128 for zero: (height, width), or (length,) as a trace.
 * @param {HTMLCanvasElement} canvas
 * @param {Numbers} bytes
 * @param {number[]} shape
 */
export function paintMap(canvas, bytes, shape) {
  if (shape.length === 1) {
    paintTrace(canvas, Array.from(bytes, (b) => (b - 128) / 127));
    return;
  }
  const [height, width] = shape;
  const image = begun(canvas, width, height);
  const [pixels, colours] = [new Uint32Array(image.data.buffer), palette()];
  for (let i = 0; i < bytes.length; i++) pixels[i] = colours[bytes[i]];
  put(canvas, image);
}

/**
 * Numbers, divided by `scale`: (height, width) or (length,); of a map only the first `known` positions in scan order.
 * @param {HTMLCanvasElement} canvas
 * @param {Numbers} values
 * @param {number[]} shape
 * @param {number} scale
 * @param {number} [known]
 */
export function paintValues(canvas, values, shape, scale, known = values.length) {
  if (shape.length === 1) {
    paintTrace(canvas, Array.from(values, (v) => v / (scale || 1)), known);
    return;
  }
  const [height, width] = shape;
  const image = begun(canvas, width, height);
  for (let i = 0; i < Math.min(known, values.length); i++) {
    image.data.set([...diverging(values[i] / (scale || 1)), Number.isNaN(values[i]) ? 0 : 255], 4 * i);
  }
  put(canvas, image);
}

/**
 * A filter with three channels in its colours: each from its least to its largest weight.
 * @param {HTMLCanvasElement} canvas
 * @param {Numbers} values (height, width, 3)
 * @param {number[]} shape
 */
export function paintColours(canvas, values, [height, width]) {
  const image = begun(canvas, width, height);
  let most = 0;
  for (const v of values) most = Math.max(most, Math.abs(v));
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 128 + (127 * values[3 * i + c]) / (most || 1);
    image.data[4 * i + 3] = 255;
  }
  put(canvas, image);
}

/**
 * A picture as eyes see it, grey or RGB, or its first channel in grey where there are others.
 * @param {HTMLCanvasElement} canvas
 * @param {Numbers} values
 * @param {number[]} shape (height, width, channels)
 * @param {[number, number]} range
 */
export function paintPicture(canvas, values, [height, width, channels], [low, high]) {
  const image = begun(canvas, width, height);
  const factor = 255 / (high - low || 1);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = (values[channels * i + (channels >= 3 ? c : 0)] - low) * factor;
    }
    image.data[4 * i + 3] = 255;
  }
  put(canvas, image);
}

const TRACE = { width: 240, height: 100 };

/**
 * A signal from -1 to 1 as a line; where there are more values than pixels, from the least to the largest in each.
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} values
 * @param {number} [known]
 */
export function paintTrace(canvas, values, known = values.length) {
  const { width, height } = TRACE;
  canvas.width = width;
  canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(document.documentElement); // the canvas may not be on the page yet
  /** @param {number} v */
  const y = (v) => height / 2 - v * (height / 2 - 3);
  context.strokeStyle = style.getPropertyValue("--rule");
  context.beginPath();
  context.moveTo(0, height / 2);
  context.lineTo(width, height / 2);
  context.stroke();
  context.strokeStyle = style.getPropertyValue("--trace");
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  for (let x = 0; x < width; x++) {
    const from = Math.floor((x * values.length) / width);
    const to = Math.max(from + 1, Math.floor(((x + 1) * values.length) / width));
    const part = values.slice(from, Math.min(to, known));
    if (!part.length) break;
    const [low, high] = [Math.min(...part), Math.max(...part)];
    context.lineTo(x, y(low));
    if (high !== low) context.lineTo(x, y(high));
  }
  context.stroke();
}
