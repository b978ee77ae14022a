// A layer: all its activation maps, its filters as little pictures, and what it costs.

import { el, byId, by, whole, large, latest, number } from "page/dom.js";
import { chosen, choose, on, onPicture, read, whichInput } from "page/state.js";
import { paintMap, paintValues, paintColours } from "page/paint.js";
import { onScheme } from "page/colour.js";
import { excitation } from "page/excitation.js";

/** @typedef {import("page/state.js").Net} Net */

/** First and last input position that each position of the chosen layer sees, a pair of rows a dimension. */
/** @type {import("page/message.js").Tensor[]} */
let seen = [];

/**
 * The input's positions that a position of the chosen layer sees, a pair a dimension.
 * @param {number[] | null} position
 */
export function seenFrom(position) {
  if (!position || !seen.length || position.length !== seen.length) return null;
  return seen.map(({ data, shape }, dim) => [data[position[dim]], data[shape[1] + position[dim]]]);
}

/**
 * The position of a layer that a place of its drawn map stands for.
 * @param {number[]} shape The layer's.
 * @param {number} down From 0 to 1.
 * @param {number} across
 * @returns {number[]}
 */
export function positionAt(shape, down, across) {
  const spatial = shape.slice(0, -1);
  const at = (/** @type {number} */ part, /** @type {number} */ n) => Math.min(n - 1, Math.max(0, Math.floor(part * n)));
  if (spatial.length === 0) return [];
  if (spatial.length === 1) return [at(across, spatial[0])];
  const outer = spatial.slice(0, -2).map((n) => Math.floor(chosen.depth * (n - 1) + 0.5));
  const [rows, columns] = spatial.slice(-2);
  return [...outer, at(down, rows), at(across, columns)];
}

/**
 * @param {import("page/source.js").Source} source
 * @param {Net} net
 */
export function showLayer(source, net) {
  const place = byId("layer");
  let order = "index";
  let from = 0;
  const head = el("h2", { id: "layer-head" });
  const words = el("p", { class: "words" });
  const cost = el("p", { class: "words cost" });
  const grid = el("div", { class: "grid", role: "group", "aria-label": "activation maps" });
  const more = el("p", { class: "row" });
  const choice = el("select", { id: "order" }, ...["index", "strength", "similarity"].map((o) => el("option", { value: o }, o)));
  choice.addEventListener("change", () => {
    order = choice.value;
    from = 0;
    fill();
  });
  const looks = excitation(source, net);
  place.replaceChildren(head, words, cost, el("p", { class: "row" }, el("label", {}, "Maps by ", choice)), grid, more, looks.place);

  function describe() {
    const node = net.nodes[chosen.node];
    head.textContent = node.path;
    words.textContent = sentence(net, chosen.node);
    cost.replaceChildren(...costWords(node));
  }

  const fill = latest(async () => {
    if (!chosen.turn) return;
    const { header, arrays } = await source.ask({ ask: "layer", node: chosen.node, order, from, depth: chosen.depth, ...whichInput() });
    if (header.node !== chosen.node) return;
    const node = net.nodes[header.node];
    seen = [];
    for (let dim = 0; arrays[`sees${dim}`]; dim++) seen.push(arrays[`sees${dim}`]);
    const maps = arrays.maps;
    const size = maps.data.length / maps.shape[0];
    const cards = Array.from(arrays.channels.data, (channel, i) => mapCard(node, channel, {
      map: maps.data.subarray(i * size, (i + 1) * size),
      shape: maps.shape.slice(1),
      silent: arrays.silent.data[i] === 1,
      strength: arrays.strengths.data[i],
      filters: arrays.filters && part(arrays.filters, i),
      channels: header.filter_shape?.at(-1),
    }));
    // What has the keyboard's attention keeps it while a drawing goes on.
    const focused = grid.contains(document.activeElement) ? chosen.channel : -1;
    grid.replaceChildren(...cards);
    if (focused >= 0) /** @type {HTMLElement | null} */ (grid.querySelector(`[data-channel="${focused}"]`))?.focus();
    more.replaceChildren(...pager(header.count, cards.length));
    looks.show(header.node, arrays.filters ? Array.from(arrays.channels.data) : []);
    select();
    choose({ box: seenFrom(chosen.position) });
  });

  /** @param {number} count @param {number} shown */
  function pager(count, shown) {
    if (shown === count) return [];
    const step = (/** @type {number} */ to) => () => {
      from = to;
      fill();
    };
    return [
      el("button", { type: "button", disabled: from === 0, onclick: step(Math.max(0, from - 64)) }, "\u2190 earlier"), " ",
      `${whole(from + 1)} to ${whole(from + shown)} of ${whole(count)} maps`, " ",
      el("button", { type: "button", disabled: from + shown >= count, onclick: step(from + 64) }, "later \u2192"),
    ];
  }

  function select() {
    for (const card of grid.children) {
      card.setAttribute("aria-pressed", String(Number(/** @type {HTMLElement} */ (card).dataset.channel) === chosen.channel));
    }
  }
  on(["node"], () => {
    from = 0;
    describe();
  });
  on(["node", "depth", "input"], fill);
  onPicture(place, fill);
  on(["channel"], select);
  on(["position"], () => choose({ box: seenFrom(chosen.position) }));
  onScheme(fill);
  describe();
}

/**
 * @param {import("page/message.js").Tensor} tensor
 * @param {number} i
 */
function part({ data, shape }, i) {
  const size = data.length / shape[0];
  return { data: data.subarray(i * size, (i + 1) * size), shape: shape.slice(1) };
}

/**
 * @param {import("page/state.js").NetNode} node
 * @param {number} channel
 * @param {{map: import("page/message.js").Numbers, shape: number[], silent: boolean, strength: number,
 *   filters?: import("page/message.js").Tensor, channels?: number}} what
 */
function mapCard(node, channel, { map, shape, silent, strength, filters, channels }) {
  const canvas = el("canvas", { class: shape.length > 1 ? "pixels map" : "map trace", "aria-hidden": "true" });
  paintMap(canvas, map, shape);
  const vector = node.shape.length === 1;
  const title = vector ? "all values" : `${channel}`;
  const said = `${vector ? "all values of the layer" : `map ${channel}`}, strength ${number(strength, 3)}${silent ? ", silent" : ""}`;
  const card = el("button", { type: "button", class: silent ? "map-card silent" : "map-card", "data-channel": channel, "aria-label": said },
    canvas, ...(filters ? filterPictures(filters, channels ?? 0) : []),
    el("span", { class: "caption", title: silent ? "nothing above zero anywhere: the ReLU behind it gives zeros" : "" }, silent ? `${title} silent` : title));
  /** @param {MouseEvent} event */
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return positionAt(node.shape, (event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width);
  };
  card.addEventListener("pointermove", (event) => choose({ box: seenFrom(at(event)) }));
  card.addEventListener("pointerleave", () => choose({ box: seenFrom(chosen.position) }));
  card.addEventListener("click", (event) => {
    if (vector) return;
    const pointed = event.detail > 0 && event.target === canvas;
    choose({ channel, position: pointed ? at(event) : chosen.position });
  });
  return card;
}

/**
 * A filter's channels as little pictures; three channels are one picture in colour.
 * @param {import("page/message.js").Tensor} filter (*kernel, channels)
 * @param {number} channels Of which there may be more.
 */
export function filterPictures({ data, shape }, channels) {
  const kernel = shape.slice(0, -1);
  const shown = shape[shape.length - 1];
  let most = 0;
  for (const v of data) most = Math.max(most, Math.abs(v));
  if (channels === 3 && kernel.length === 2) {
    const canvas = el("canvas", { class: "pixels filter one" });
    paintColours(canvas, data, kernel);
    return [el("span", { class: "filters" }, canvas)];
  }
  const flat = kernel.length === 1 ? kernel : [kernel.slice(0, -1).reduce((a, b) => a * b, 1), kernel[kernel.length - 1]];
  if (flat.every((n) => n === 1)) return [];
  const canvases = Array.from({ length: shown }, (_, c) => {
    const canvas = el("canvas", { class: kernel.length === 1 ? "filter trace" : `pixels filter${shown === 1 ? " one" : ""}` });
    const values = Float32Array.from({ length: data.length / shown }, (_, i) => data[i * shown + c]);
    paintValues(canvas, values, flat, most);
    return canvas;
  });
  return [el("span", { class: "filters", "aria-hidden": "true" }, ...canvases, channels > shown ? el("span", { class: "hint" }, `+${channels - shown}`) : null)];
}

/**
 * What a layer does, in words.
 * @param {Net} net
 * @param {number} place
 */
function sentence(net, place) {
  const node = net.nodes[place];
  const from = node.inputs.map((i) => read(net, i).name).join(" and ");
  const shapes = node.inputs.map((i) => by(read(net, i).shape)).join(" and ");
  const sees = node.sees.length ? ` One of its values sees ${by(node.sees)} positions of ${read(net, -1).name}.` : "";
  return `${node.kind} of ${from}, ${shapes}, gives ${by(node.shape)}.${sees}`;
}

/** @param {import("page/state.js").NetNode} node */
function costWords(node) {
  if (!node.dense) return [];
  const times = node.dense.parameters / node.parameters;
  if (times <= 1.001) {
    return [el("strong", {}, whole(node.parameters)), " parameters, as many as there are connections: it is fully connected."];
  }
  return [
    el("strong", {}, whole(node.parameters)), ` parameters and ${large(node.multiply_adds)} multiply-adds. `,
    "A fully-connected layer between the same shapes would have ", el("strong", {}, large(node.dense.parameters)),
    ` parameters: ${whole(Math.round(times))} times as many.`,
  ];
}
