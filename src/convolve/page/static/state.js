// What is chosen on the page, and who wants to know when it changes.

/**
 * @typedef {{path: string, kind: string, shape: number[], inputs: number[], parameters: number, multiply_adds: number,
 *   dense: {parameters: number, multiply_adds: number} | null, winograd: boolean, pads: number[][] | null,
 *   sees: number[]}} NetNode
 * @typedef {{title: string, input: {shape: number[], range: [number, number], dtype: string},
 *   classes: string[] | null, nodes: NetNode[], folds: {first: number, last: number, title: string}[],
 *   parameters: number, multiply_adds: number, samples: number, labels: number[] | null, source: string, training: boolean,
 *   other: string | null}} Net
 * @typedef {{
 *   picture: import("page/message.js").Tensor | null,
 *   turn: number,
 *   node: number,
 *   channel: number,
 *   position: number[] | null,
 *   depth: number,
 *   box: number[][] | null,
 *   best: number,
 * }} Chosen
 */

/** @type {Chosen} */
export const chosen = {
  picture: null, // as the net takes it
  turn: 0, // counts the pictures that were answered
  node: 0,
  channel: 0,
  position: null, // spatial, of the chosen node
  depth: 0.5, // which slice of volumes is shown
  best: 0, // the most probable class
  box: null, // what of the input is marked: first and last position, a pair a dimension
};

/** @type {[string[], () => void][]} */
const listeners = [];

/**
 * @param {(keyof Chosen)[]} names
 * @param {() => void} task Called after any of these changed.
 */
export function on(names, task) {
  listeners.push([names, task]);
}

/** @param {Partial<Chosen>} changes */
export function choose(changes) {
  const changed = Object.keys(changes).filter((k) => /** @type {any} */ (chosen)[k] !== /** @type {any} */ (changes)[k]);
  Object.assign(chosen, changes);
  for (const [names, task] of listeners) if (names.some((n) => changed.includes(n))) task();
}
