// What the net makes of the picture: its classes, each with a bar.

import { el, byId, by, number, percent } from "page/dom.js";

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
  if (header.task === "regress") {
    place.replaceChildren(el("dl", { class: "values" }, ...header.answer.flatMap((/** @type {any} */ entry) =>
      [el("dt", {}, entry.name), el("dd", {}, number(entry.share, 6))])));
    return;
  }
  const several = header.task === "labels";
  const there = several ? header.answer.filter((/** @type {any} */ entry) => entry.share >= 0.5) : [];
  const marked = (/** @type {any} */ entry) => (several ? entry.share >= 0.5 : entry.class === header.best);
  const name = (/** @type {number} */ i) => (net.classes ? net.classes[i] : String(i));
  const best = header.answer.find((/** @type {any} */ entry) => entry.class === header.best);
  const rows = header.answer.map((/** @type {any} */ entry) =>
    el("li", { class: marked(entry) ? "best" : "" },
      el("span", { class: "class" }, entry.name),
      el("span", { class: "bar", "aria-hidden": "true" }, el("span", { style: { width: `${100 * entry.share}%` } })),
      el("span", { class: "share" }, percent(entry.share)),
    ),
  );
  const truth = header.label === null || header.label === undefined ? "" : `. It is labelled ${name(header.label)}.`;
  const verdict = several
    ? [el("strong", { id: "verdict" }, there.map((/** @type {any} */ entry) => entry.name).join(", ") || "none of them")]
    : [el("strong", { id: "verdict" }, best.name), ` with ${percent(best.share)}`, truth];
  place.replaceChildren(
    el("p", { class: "verdict" }, ...verdict),
    el("ol", { class: "bars" }, ...rows),
  );
}
