// What each filter looks for: the samples' patches that excite it most, in which classes, and what it is for.

import { el, number, percent, whole } from "page/dom.js";
import { paintPicture, paintTrace } from "page/paint.js";

const AT_A_TIME = 12;
const AGAIN = 300; // milliseconds between two questions how far it is

/**
 * @param {import("page/source.js").Source} source
 * @param {import("page/state.js").Net} net
 */
export function excitation(source, net) {
  const head = el("h3", {}, "What its filters look for");
  const start = el("button", { type: "button", id: "measure" });
  const progress = el("progress", { max: 1, value: 0, hidden: true });
  const words = el("p", { class: "words", "aria-live": "polite" });
  const rows = el("div", { class: "excitations" });
  const more = el("p", { class: "row" });
  const place = el("div", { id: "excitation" }, head, el("p", { class: "row" }, start, progress), words, rows, more);
  /** @type {number[]} */
  let filters = [];
  let node = -1;
  let from = 0;
  /** @type {Set<number>} Layers whose measurement was asked for. */
  const asked = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let again;

  async function fill() {
    clearTimeout(again);
    const now = node;
    const wanted = filters.slice(from, from + AT_A_TIME);
    try {
      const { header, arrays } = await source.ask({ ask: "excitation", node: now, filters: wanted });
      if (now !== node) return;
      progress.value = header.part;
      progress.hidden = header.done;
      if (arrays.crops) draw(header, arrays);
      if (!header.done) again = setTimeout(fill, AGAIN);
    } catch (error) {
      progress.hidden = true;
      words.textContent = /** @type {Error} */ (error).message;
    }
  }

  /**
   * @param {Record<string, any>} header
   * @param {Record<string, import("page/message.js").Tensor>} arrays
   */
  function draw(header, arrays) {
    const through = header.heard === net.nodes[node].path ? "" : `, heard through ${header.heard}`;
    const right = header.accuracy === null ? "" : ` With all of them, ${percent(header.accuracy)} of the answers are right.`;
    words.textContent = `On ${whole(header.samples)} samples${through}: the parts of pictures that excite each filter most.${right}`;
    const { data, shape } = arrays.crops;
    const size = data.length / shape[0] / shape[1];
    rows.replaceChildren(...header.filters.map((/** @type {number} */ filter, /** @type {number} */ i) => {
      const crops = Array.from({ length: shape[1] }, (_, k) => {
        const canvas = el("canvas", { class: "pixels", role: "img", "aria-label": `its number ${k + 1}, value ${number(arrays.values.data[i * shape[1] + k], 3)}` });
        const part = data.subarray((i * shape[1] + k) * size, (i * shape[1] + k + 1) * size);
        if (shape.length === 4) paintTrace(canvas, Array.from({ length: shape[2] }, (_, t) => part[t * shape[3]] / 127.5 - 1));
        else paintPicture(canvas, part, shape.slice(2), [0, 255]);
        return canvas;
      });
      const told = [];
      if (arrays.dead.data[i]) told.push("dead: it says the same whatever it sees");
      else {
        if (arrays.favourite) {
          const name = net.classes?.[arrays.favourite.data[i]] ?? arrays.favourite.data[i];
          told.push(`most for ${name}, selective to ${number(arrays.selectivity.data[i], 2)} of 1`);
        }
        if (arrays.accuracy_without) told.push(`without it ${percent(arrays.accuracy_without.data[i])}`);
      }
      return el("div", { class: "excitation" }, el("span", { class: "number" }, String(filter)), el("span", { class: "crops" }, ...crops), el("span", { class: "hint" }, told.join("; ")));
    }));
    more.replaceChildren(...(filters.length > AT_A_TIME ? [
      el("button", { type: "button", disabled: from === 0, onclick: () => turn(-1) }, "\u2190 earlier"),
      `${whole(from + 1)} to ${whole(Math.min(filters.length, from + AT_A_TIME))} of ${whole(filters.length)} filters shown above`,
      el("button", { type: "button", disabled: from + AT_A_TIME >= filters.length, onclick: () => turn(1) }, "later \u2192"),
    ] : []));
  }

  /** @param {number} by */
  function turn(by) {
    from += by * AT_A_TIME;
    fill();
  }

  start.addEventListener("click", () => {
    asked.add(node);
    start.hidden = true;
    progress.hidden = false;
    fill();
  });

  return {
    place,
    /**
     * @param {number} layer
     * @param {number[]} shown Its filters, in the order of the maps; none where it has no filters.
     */
    show(layer, shown) {
      place.hidden = !source.measured(layer) || !shown.length || net.samples < 2;
      const same = layer === node && shown.join() === filters.join();
      node = layer;
      filters = shown;
      if (place.hidden || same) return;
      clearTimeout(again);
      from = 0;
      rows.replaceChildren();
      more.replaceChildren();
      words.textContent = "";
      progress.hidden = true;
      if (!source.live) asked.add(node);
      start.hidden = asked.has(node);
      start.textContent = `Measure on ${whole(net.samples)} samples`;
      if (asked.has(node)) fill();
    },
  };
}

