// Colours of numbers: blue below zero, orange above, neutral at zero; the two differ for colour-blind eyes as well.

/** @typedef {[number, number, number]} Rgb */

/** @type {Record<"light" | "dark", {zero: Rgb, above: Rgb[], below: Rgb[], nothing: Rgb}>} */
const STOPS = {
  light: {
    zero: [246, 245, 241],
    above: [[249, 206, 150], [226, 131, 32], [120, 53, 6]],
    below: [[170, 204, 232], [62, 130, 190], [8, 54, 104]],
    nothing: [255, 255, 255],
  },
  dark: {
    zero: [33, 35, 41],
    above: [[112, 70, 24], [222, 139, 52], [255, 226, 184]],
    below: [[30, 72, 112], [78, 156, 219], [208, 233, 255]],
    nothing: [22, 24, 28],
  },
};

const darkness = matchMedia("(prefers-color-scheme: dark)");

/** @param {() => void} task Called when light turns to dark, or back. */
export function onScheme(task) {
  darkness.addEventListener("change", task);
}

function stops() {
  return STOPS[darkness.matches ? "dark" : "light"];
}

/**
 * The colour of a number from -1 to 1.
 * @param {number} t
 * @returns {Rgb}
 */
export function diverging(t) {
  const { zero, above, below, nothing } = stops();
  if (Number.isNaN(t)) return nothing;
  const side = [zero, ...(t < 0 ? below : above)];
  const at = Math.min(Math.abs(t), 1) * (side.length - 1);
  const low = Math.min(Math.floor(at), side.length - 2);
  return /** @type {Rgb} */ (side[low].map((c, i) => Math.round(c + (side[low + 1][i] - c) * (at - low))));
}

/** @param {number} t */
export function css(t) {
  return `rgb(${diverging(t).join(" ")})`;
}

/** Whether ink on the colour of a number is best dark. @param {number} t */
export function darkInk(t) {
  const [r, g, b] = diverging(t);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140;
}

/** @type {Map<boolean, Uint32Array>} */
const palettes = new Map();

/** Bytes to colours as pixels hold them: 0 is nothing, 1 .. 255 go from -1 to 1. */
export function palette() {
  const known = palettes.get(darkness.matches);
  if (known) return known;
  const made = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i++) {
    made.set(diverging(i ? (i - 128) / 127 : NaN), 4 * i);
    made[4 * i + 3] = i ? 255 : 0;
  }
  const pixels = new Uint32Array(made.buffer);
  palettes.set(darkness.matches, pixels);
  return pixels;
}
