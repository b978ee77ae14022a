// What the net makes of the picture: its classes, each with a bar.

import { el, byId, by, percent } from "page/dom.js";

/**
 * @param {import("page/state.js").Net} net
 * @param {Record<string, any>} header
 * @param {Record<string, any>} what What was looked at.
 */
export function showAnswer(net, header, what) {
  const place = byId("answer");
  if (!header.answer) {
    place.replaceChildren(el("p", { class: "words" }, `The net gives ${by(header.shape)} values: see its last layer.`));
    return;
  }
  const name = (/** @type {number} */ i) => (net.classes ? net.classes[i] : String(i));
  const best = header.answer.find((/** @type {any} */ entry) => entry.class === header.best);
  const rows = header.answer.map((/** @type {any} */ entry) =>
    el("li", { class: entry.class === header.best ? "best" : "" },
      el("span", { class: "class" }, entry.name),
      el("span", { class: "bar", "aria-hidden": "true" }, el("span", { style: { width: `${100 * entry.share}%` } })),
      el("span", { class: "share" }, percent(entry.share)),
    ),
  );
  const truth = header.label === null || header.label === undefined ? "" : `. It is labelled ${name(header.label)}.`;
  place.replaceChildren(
    el("p", { class: "verdict" }, el("strong", { id: "verdict" }, best.name), ` with ${percent(best.share)}`, truth),
    el("ol", { class: "bars" }, ...rows),
  );
}
