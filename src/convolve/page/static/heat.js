// Which part of the picture an answer comes from, drawn over it.

import { el, latest, number as digits } from "page/dom.js";
import { chosen, on, whichInput } from "page/state.js";

/** @typedef {[number, number, number]} Rgb */
const FOR = /** @type {Rgb} */ ([240, 140, 30]);
const AGAINST = /** @type {Rgb} */ ([60, 140, 225]);
const MOST = 0.85; // opacity
const FLATTENED = " Grad-CAM without its mean over positions, because this net weighs each position by itself.";

/**
 * @param {import("page/source.js").Source} source
 * @param {import("page/state.js").Net} net
 * @param {number} number Of the input that it is drawn over.
 */
export function heat(source, net, number) {
  const canvas = el("canvas", { class: "heat pixels", role: "img", hidden: true });
  const classes = net.nodes[net.nodes.length - 1].shape.at(-1) ?? 1;
  const name = (/** @type {number} */ c) => net.classes?.[c] ?? String(c);
  const method = el("select", { id: number ? `heat-${number}` : "heat" },
    el("option", { value: "" }, "nothing"), el("option", { value: "grad_cam" }, "Grad-CAM"), el("option", { value: "occlusion" }, "occlusion"));
  const target = el("select", { id: number ? `heat-class-${number}` : "heat-class", disabled: true },
    el("option", { value: "best" }, "the answer"),
    ...Array.from({ length: Math.min(classes, 1000) }, (_, c) => el("option", { value: c }, name(c))));
  const words = el("p", { class: "hint", "aria-live": "polite" });
  /** @type {import("page/message.js").Tensor | null} */
  let map = null;

  const fill = latest(async () => {
    target.disabled = !method.value;
    if (!method.value || !chosen.turn || chosen.input !== number) {
      canvas.hidden = true;
      words.textContent = "";
      return;
    }
    const of = target.value === "best" ? chosen.best : Number(target.value);
    canvas.hidden = true;
    const { header, arrays } = await source.ask({ ask: "heat", method: method.value, target: of, ...whichInput() });
    map = arrays.heat;
    words.textContent = header.layer
      ? `${header.method}. Orange: where ${header.layer} speaks for ${name(header.target)}.${header.method === "HiResCAM" ? FLATTENED : ""}`
      : `Occlusion. Orange: covering it lowers the score of ${name(header.target)}, by ${digits(header.largest, 3)} at most; blue: it raises it.`;
    canvas.hidden = false;
    canvas.setAttribute("aria-label", words.textContent);
    paint();
  });

  function paint() {
    if (!map || canvas.hidden) return;
    const sizes = map.shape.length === 1 ? [1, map.shape[0]] : map.shape.slice(-2);
    const [rows, columns] = sizes;
    const at = map.shape.length > 2 ? Math.floor(chosen.depth * (map.shape[0] - 1) + 0.5) * rows * columns : 0;
    canvas.width = columns;
    canvas.height = rows;
    const image = new ImageData(columns, rows);
    for (let i = 0; i < rows * columns; i++) {
      const v = map.data[at + i];
      image.data.set([...(v < 0 ? AGAINST : FOR), 255 * MOST * Math.min(1, Math.abs(v))], 4 * i);
    }
    /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
  }

  method.addEventListener("change", fill);
  target.addEventListener("change", fill);
  on(["turn", "input"], fill);
  on(["depth"], paint);
  const choice = el("div", {}, el("p", { class: "row" },
    el("label", {}, "Where it comes from: ", method), el("label", {}, "for ", target)), words);
  return { canvas, choice };
}
