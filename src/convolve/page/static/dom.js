// Elements, and numbers as people read them. Text goes in as text, never as markup.

/**
 * @typedef {string | number | Node | null | undefined} Child
 */

/**
 * An element with attributes, listeners (`onclick`) and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  set(made, attributes);
  made.append(...children.filter((c) => c !== null && c !== undefined).map(text));
  return made;
}

/**
 * An element of SVG.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(made, attributes);
  made.append(...children.filter((c) => c !== null && c !== undefined).map(text));
  return made;
}

/** @param {any} child */
function text(child) {
  return typeof child === "number" ? String(child) : child;
}

/**
 * @param {Element} made
 * @param {Record<string, any>} attributes
 */
function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(/** @type {HTMLElement} */ (made).style, value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * The element of an id that the page is known to have.
 * @param {string} id
 */
export function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

const MINUS = "\u2212";

/**
 * A number to so many digits that count.
 * @param {number} value
 * @param {number} [digits]
 */
export function number(value, digits = 4) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  let made;
  if (value === 0) made = "0";
  else if (size >= 1e6 || size < 1e-4) made = size.toExponential(digits - 1).replace("e+", "e").replace("e-", `e${MINUS}`);
  else made = String(Number(size.toPrecision(digits)));
  return value < 0 ? MINUS + made : made;
}

/** @param {number} value A whole number with its thousands parted. */
export function whole(value) {
  return value.toLocaleString("en");
}

/** @param {number} value A large number in words, as in "120.8 billion". */
export function large(value) {
  for (const [size, word] of /** @type {[number, string][]} */ ([[1e12, "trillion"], [1e9, "billion"]])) {
    if (value >= size) return `${(value / size).toFixed(1)} ${word}`;
  }
  return whole(value);
}

/** @param {number[]} shape */
export function by(shape) {
  return shape.join("\u2009\u00d7\u2009");
}

/** @param {number} share */
export function percent(share) {
  return `${(100 * share).toFixed(share >= 0.0995 || share < 0.0005 ? 1 : 2)}\u2009%`;
}

/** @type {(sentence: string) => void} */
let failed = () => {};

/** @param {(sentence: string) => void} task Told what went wrong where nobody waits for a result. */
export function onFailure(task) {
  failed = task;
}

/**
 * Runs a task, never twice at once: what is asked for meanwhile is done once, afterwards, with the latest arguments.
 * @template {any[]} A
 * @param {(...given: A) => Promise<void>} task
 * @returns {(...given: A) => Promise<void>}
 */
export function latest(task) {
  /** @type {A | null} */
  let waiting = null;
  /** @type {Promise<void> | null} */
  let running = null;
  /** @param {A} given */
  async function run(...given) {
    waiting = given;
    if (running) return running;
    running = (async () => {
      try {
        while (waiting) {
          const now = waiting;
          waiting = null;
          await task(...now);
        }
      } catch (error) {
        failed(/** @type {Error} */ (error).message);
      } finally {
        running = null;
      }
    })();
    return running;
  }
  return run;
}
