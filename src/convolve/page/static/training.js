// Training, while it runs and afterwards: curves, the first layer's filters as they form, mistakes as pictures.

import { quantile, ticks } from "d3-array";
import { line } from "d3-shape";
import { el, svg, byId, latest, number, percent } from "page/dom.js";
import { filterPictures } from "page/layer.js";
import { paintPicture, paintTrace } from "page/paint.js";
import { onScheme } from "page/colour.js";

const AGAIN = 1000; // milliseconds between two questions how far it is
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [460, 200, 52, 24];

/** What is drawn beside the loss: of each metric its heading and how it is told. @type {Record<string, [string, (v: number) => string]>} */
const METRICS = {
  accuracy: ["Accuracy", percent],
  iou: ["Intersection over union", (v) => number(v, 3)],
  f1_micro: ["F1 of all labels", (v) => number(v, 3)],
  mae: ["Mean error", (v) => number(v, 3)],
  r2: ["R2", (v) => number(v, 3)],
};
const LEAST = -1; // what R2 begins below would press the rest flat

/**
 * @typedef {{name: string, points: [number, number][], kind: string}} Curve
 */

/**
 * @param {import("page/source.js").Source} source
 * @param {import("page/state.js").Net} net
 */
export async function showTraining(source, net) {
  const place = byId("training");
  place.hidden = false;
  const stands = el("p", { class: "words", "aria-live": "off" });
  const curves = el("div", { class: "curves" });
  const slider = el("input", { type: "range", id: "epoch", min: 0, value: 0, "aria-label": "Epoch" });
  const which = el("output", {});
  const filters = el("div", { class: "forming" });
  const mistakes = el("div", { class: "mistakes" });
  const kept = el("div", {}, el("p", { class: "row" }, "After epoch ", slider, which), filters, mistakes);
  place.replaceChildren(el("h2", { id: "training-head" }, "Training"), stands, curves, kept);
  let known = 0;
  let follows = true;
  /** @type {string[]} */
  let beside = []; // what is shown beside mistakes

  const moment = latest(async () => {
    which.textContent = `${Number(slider.value) + 1} of ${known}`;
    const { header, arrays } = await source.ask({ ask: "moment", epoch: Number(slider.value) });
    const { data, shape } = arrays.filters;
    const size = data.length / (shape[0] || 1);
    filters.replaceChildren(...(shape[0] ? [el("h3", {}, `Filters of the first layer`)] : []),
      ...Array.from({ length: Math.min(shape[0], 64) }, (_, i) =>
        el("span", {}, ...filterPictures({ data: data.subarray(i * size, (i + 1) * size), shape: shape.slice(1) }, shape[shape.length - 1]))));
    const pictures = arrays.pictures;
    mistakes.replaceChildren(...(pictures.shape[0] ? [el("h3", {}, "Mistakes")] : []),
      ...header.mistakes.map((/** @type {string} */ said, /** @type {number} */ i) =>
        el("figure", { class: "mistake" }, picture(pictures.data, pictures.shape.slice(1), i, said),
          ...beside.flatMap((name, j) => [
            picture(arrays.beside.data, arrays.beside.shape.slice(2), i * beside.length + j, `${name}: ${said}`),
            el("span", { class: "hint" }, name)]),
          el("figcaption", {}, said))));
  });

  async function fill() {
    const { header } = await source.ask({ ask: "training" });
    /** @type {Record<string, number>[]} */
    const epochs = header.epochs;
    beside = header.beside;
    draw(header.losses, epochs);
    const at = header.stands;
    stands.textContent = at && epochs.length < at.epochs
      ? `Epoch ${at.epoch} of ${at.epochs}; about ${Math.round(at.left)} s are left.` : said(epochs);
    kept.hidden = !header.layer || !epochs.length;
    if (epochs.length !== known) {
      const first = known === 0;
      known = epochs.length;
      slider.max = String(known - 1);
      if (follows) slider.value = slider.max;
      if (!kept.hidden) moment();
      if (!first) document.dispatchEvent(new CustomEvent("again"));
    }
    if (source.live && at && epochs.length < at.epochs) setTimeout(() => fill().catch(() => {}), AGAIN);
    else if (source.live && !at && !epochs.length) setTimeout(() => fill().catch(() => {}), AGAIN);
  }

  /**
   * @param {[number, number][]} losses
   * @param {Record<string, number>[]} epochs
   */
  function draw(losses, epochs) {
    /** @param {string} name @returns {[number, number][]} */
    const points = (name) => epochs.flatMap((e, i) => (e[name] === null || e[name] === undefined ? [] : [[i + 1, e[name]]]));
    const end = Math.max(1, epochs.length, ...losses.map(([at]) => at));
    curves.replaceChildren(
      panel("Loss", end, [
        { name: "each step", points: losses, kind: "steps" },
        { name: "training", points: points("loss"), kind: "training" },
        { name: "validation", points: points("validation_loss"), kind: "validation" },
      ], (v) => number(v, 3)),
      ...metricsOf(epochs).map((name) => panel(METRICS[name][0], end, ["", "validation_"].map((part) => (
        { name: part ? "validation" : "training", points: points(part + name).map(([at, v]) => [at, Math.max(v, LEAST)]), kind: part ? "validation" : "training" })), METRICS[name][1])),
    );
  }
  slider.addEventListener("input", () => {
    follows = slider.value === slider.max;
    moment();
  });
  onScheme(() => !kept.hidden && moment());
  await fill();
}

/**
 * One of several pictures: of a mistake, or beside one.
 * @param {import("page/message.js").Numbers} data
 * @param {number[]} shape Of one: (rows, columns, channels), or (length, channels) of a signal.
 * @param {number} i
 * @param {string} words
 */
function picture(data, shape, i, words) {
  const canvas = el("canvas", { class: "pixels", role: "img", "aria-label": words });
  const each = shape.reduce((a, b) => a * b, 1);
  const part = data.subarray(i * each, (i + 1) * each);
  if (shape.length === 2) paintTrace(canvas, Array.from({ length: shape[0] }, (_, t) => part[t * shape[1]] / 127.5 - 1));
  else paintPicture(canvas, part, shape, [0, 255]);
  return canvas;
}

/** The metrics that there are curves of: accuracy, until others are known. @param {Record<string, number>[]} epochs */
function metricsOf(epochs) {
  const known = Object.keys(METRICS).filter((name) => epochs.some((e) => name in e || `validation_${name}` in e));
  return known.length ? known : ["accuracy"];
}

/** @param {Record<string, number>[]} epochs */
function said(epochs) {
  const last = epochs[epochs.length - 1];
  if (!last) return "No epoch is done yet.";
  const name = metricsOf(epochs).find((metric) => metric !== "accuracy" && `validation_${metric}` in last);
  const accuracy = last.validation_accuracy;
  const reached = name ? `; at the end validation has: ${METRICS[name][0]} ${METRICS[name][1](last[`validation_${name}`])}.`
    : accuracy ? `; at the end ${percent(accuracy)} of the validation images are right.` : ".";
  return `${epochs.length} epochs${reached}`;
}

/**
 * Curves over epochs, with their axes.
 * @param {string} title
 * @param {number} end The last epoch.
 * @param {Curve[]} curves
 * @param {(value: number) => string} told
 */
function panel(title, end, curves, told) {
  const shown = curves.filter((c) => c.points.length);
  const values = shown.flatMap((c) => c.points.map(([, v]) => v));
  // The first steps' losses would press all others flat.
  const [low, high] = values.length ? [Math.min(...values), quantile(values, 0.98) ?? 1] : [0, 1];
  const span = high - low || 1;
  const x = (/** @type {number} */ at) => LEFT + (at / end) * (WIDTH - LEFT - 8);
  const y = (/** @type {number} */ v) => 10 + (1 - (Math.min(v, high) - low) / span) * (HEIGHT - BOTTOM - 20);
  const words = shown.map((c) => `${c.name} from ${told(c.points[0][1])} to ${told(c.points[c.points.length - 1][1])}`).join("; ");
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${words || "nothing yet"}` });
  for (const v of ticks(low, high, 4)) {
    drawing.append(svg("line", { class: "grid-line", x1: LEFT, x2: WIDTH - 8, y1: y(v), y2: y(v) }),
      svg("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, told(v)));
  }
  for (const at of ticks(0, end, Math.min(end, 8))) {
    drawing.append(svg("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, at));
  }
  const curve = line().x(([at]) => x(at)).y(([, v]) => y(v));
  for (const { points, kind } of shown) {
    drawing.append(svg("path", { class: `curve ${kind}`, d: curve(points) }));
    const [at, v] = points[points.length - 1];
    if (kind !== "steps") drawing.append(svg("circle", { class: `curve ${kind}`, cx: x(at), cy: y(v), r: 2.5 }));
  }
  const key = el("span", { class: "hint" }, ...shown.flatMap((c) => [el("span", { class: `key ${c.kind}` }), ` ${c.name}  `]));
  return el("figure", { class: "panel" }, el("figcaption", {}, el("strong", {}, title), " over epochs  ", key), drawing);
}
