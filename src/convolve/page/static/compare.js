// Two checkpoints of one net: a layer's filters and maps side by side, what changed most first.

import { el, latest, number, whole } from "page/dom.js";
import { chosen, on } from "page/state.js";
import { paintMap } from "page/paint.js";
import { onScheme } from "page/colour.js";
import { filterPictures } from "page/layer.js";

const AT_A_TIME = 24;

/**
 * @param {import("page/source.js").Source} source
 * @param {import("page/state.js").Net} net
 * @param {HTMLElement} place
 */
export function showComparison(source, net, place) {
  const words = el("p", { class: "words" });
  const rows = el("div", { class: "pairs" });
  const more = el("p", { class: "row" });
  place.replaceChildren(el("h2", { id: "compare-head" }, `Beside ${net.other}`), words, rows, more);
  let from = 0;

  const fill = latest(async () => {
    if (!chosen.turn) return;
    const got = await source.ask({ ask: "compare", node: chosen.node, from, depth: chosen.depth }).catch(() => null);
    rows.hidden = more.hidden = !got;
    const path = net.nodes[chosen.node].path;
    if (!got) {
      words.textContent = `${path} has no filters that learn. Choose a layer that has some.`;
      return;
    }
    const { header, arrays } = got;
    words.textContent = `The filters of ${path} in ${net.title} and in ${net.other}, with their maps for this picture; what changed most comes first.`;
    const part = (/** @type {string} */ name, /** @type {number} */ i) => {
      const { data, shape } = arrays[name];
      const size = data.length / shape[0];
      return { data: data.subarray(i * size, (i + 1) * size), shape: shape.slice(1) };
    };
    rows.replaceChildren(...Array.from(arrays.channels.data, (channel, i) => el("figure", { class: "pair" },
      ...["a", "b"].map((name) => el("span", { class: "side" },
        ...(arrays[`maps_${name}`] ? [map(part(`maps_${name}`, i), `map ${channel} in ${name === "a" ? net.title : net.other}`)] : []),
        ...filterPictures(part(`filters_${name}`, i), arrays[`filters_${name}`].shape.at(-1) ?? 1))),
      el("figcaption", {}, `${channel}: changed by ${number(arrays.distance.data[i], 3)}, cosine ${number(arrays.cosine.data[i], 3)}`))));
    more.replaceChildren(...(header.count > AT_A_TIME ? [
      el("button", { type: "button", disabled: from === 0, onclick: () => turn(-1) }, "\u2190 more changed"),
      `${whole(from + 1)} to ${whole(Math.min(header.count, from + AT_A_TIME))} of ${whole(header.count)}`,
      el("button", { type: "button", disabled: from + AT_A_TIME >= header.count, onclick: () => turn(1) }, "less changed \u2192"),
    ] : []));
  });

  /** @param {number} by */
  function turn(by) {
    from += by * AT_A_TIME;
    fill();
  }
  on(["node"], () => {
    from = 0;
  });
  on(["node", "turn", "depth"], fill);
  onScheme(fill);
}

/** @param {import("page/message.js").Tensor} tensor @param {string} said */
function map({ data, shape }, said) {
  const canvas = el("canvas", { class: shape.length > 1 ? "pixels map" : "map trace", role: "img", "aria-label": said });
  paintMap(canvas, data, shape);
  return canvas;
}
