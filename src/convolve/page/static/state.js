// What is chosen on the page, and who wants to know when it changes.

/**
 * @typedef {{path: string, kind: string, shape: number[], inputs: number[], parameters: number, multiply_adds: number,
 *   dense: {parameters: number, multiply_adds: number} | null, winograd: boolean, pads: number[][] | null,
 *   sees: number[]}} NetNode
 * @typedef {{name: string, source: string, shape: number[], range: [number, number]}} NetInput
 * @typedef {{title: string, inputs: NetInput[],
 *   classes: string[] | null, nodes: NetNode[], folds: {first: number, last: number, title: string}[],
 *   parameters: number, multiply_adds: number, samples: number, labels: number[] | null, source: string, training: boolean,
 *   other: string | null, note: string}} Net
 * @typedef {{
 *   pictures: import("page/message.js").Tensor[],
 *   input: number,
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
  pictures: [], // what each input of the net is given
  input: 0, // the one that is drawn
  turn: 0, // counts the pictures that were answered
  node: 0,
  channel: 0,
  position: null, // spatial, of the chosen node
  depth: 0.5, // which slice of volumes is shown
  best: 0, // the most probable class
  box: null, // what of the input is marked: first and last position, a pair a dimension
};

/**
 * What a node or a value reads, by its place among the nodes or, below 0, among the inputs: its name, and its shape.
 * @param {Net} net
 * @param {number} place
 */
export function read(net, place) {
  if (place >= 0) return { name: net.nodes[place].path, shape: net.nodes[place].shape };
  const input = net.inputs[-1 - place];
  return { name: net.inputs.length > 1 ? input.name : `the ${sort(input)}`, shape: input.shape };
}

/** What people call an input of so many dimensions. @param {NetInput} input */
export function sort({ shape }) {
  return ["input", "input", "signal", "picture", "volume"][Math.min(shape.length, 4)];
}

/**
 * The place of a source of values, as it is called by the program.
 * @param {Net} net
 * @param {string} source
 */
export function placeOf(net, source) {
  const input = net.inputs.findIndex((i) => i.source === source);
  return input >= 0 ? -1 - input : net.nodes.findIndex((n) => n.path === source);
}

/** What tells the program which input is meant; the first needs no words. */
export function whichInput() {
  return chosen.input ? { input: chosen.input } : {};
}

/** @type {[string[], () => void][]} */
const listeners = [];

/**
 * @param {(keyof Chosen)[]} names
 * @param {() => void} task Called after any of these changed.
 */
export function on(names, task) {
  listeners.push([names, task]);
}

/**
 * Follows new pictures: the first at once, others where the place is on the screen, and else when that comes there.
 * @param {Element} place
 * @param {() => void} task
 */
export function onPicture(place, task) {
  let [seen, due] = [false, false];
  new IntersectionObserver((entries) => {
    seen = entries[entries.length - 1].isIntersecting;
    if (seen && due) follow();
  }).observe(place);
  function follow() {
    due = !seen && chosen.turn > 1;
    if (!due) task();
  }
  on(["turn"], follow);
}

/** @param {Partial<Chosen>} changes */
export function choose(changes) {
  const changed = Object.keys(changes).filter((k) => /** @type {any} */ (chosen)[k] !== /** @type {any} */ (changes)[k]);
  Object.assign(chosen, changes);
  for (const [names, task] of listeners) if (names.some((n) => changed.includes(n))) task();
}
