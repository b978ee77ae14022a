// The net as a drawing: a card a layer with its first maps, lines for what flows between; long nets folded.

import { curveBumpX, line } from "d3-shape";
import { el, svg, byId, by, whole, large, latest } from "page/dom.js";
import { chosen, choose, on, sort } from "page/state.js";
import { paintMap } from "page/paint.js";
import { onScheme } from "page/colour.js";

/**
 * @typedef {import("page/state.js").Net} Net
 * @typedef {{first: number, last: number, title: string, folded: boolean, fold: number}} Item
 */

const WIDTH = 7; // of a card, in rem
const GAP = 1.5; // between cards
const LANE_GAP = 1;
const edge = line().curve(curveBumpX);
const FEW = 16; // cards of a net whose maps are drawn one below the other

/**
 * @param {import("page/source.js").Source} source
 * @param {Net} net
 */
export function showNet(source, net) {
  const strip = byId("strip");
  const open = new Set();
  /** @type {Set<number>} Nodes whose cards are on the screen. */
  const visible = new Set();
  /** @type {Set<number>} Those whose maps are drawn. */
  const filled = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const node = Number(/** @type {HTMLElement} */ (entry.target).dataset.node);
      if (entry.isIntersecting) visible.add(node);
      else visible.delete(node);
    }
    fill();
  }, { root: strip, rootMargin: "0px 200px" });

  const fill = latest(async () => {
    const wanted = [...visible].filter((node) => !filled.has(node)).sort((a, b) => a - b);
    if (!wanted.length || !chosen.turn) return;
    wanted.forEach((node) => filled.add(node));
    const { header, arrays } = await source.ask({ ask: "thumbnails", nodes: wanted, depth: chosen.depth });
    header.nodes.forEach((/** @type {number} */ node, /** @type {number} */ k) => {
      const { data, shape } = arrays[String(node)];
      const size = data.length / shape[0];
      strip.querySelectorAll(`[data-node="${node}"] canvas`).forEach((canvas, i) => {
        paintMap(/** @type {HTMLCanvasElement} */ (canvas), data.subarray(i * size, (i + 1) * size), shape.slice(1));
      });
      strip.querySelector(`[data-node="${node}"] .maps`)?.setAttribute("aria-label",
        `first ${shape[0]} of its maps; the largest value is ${header.scales[k].toPrecision(3)} without its sign`);
    });
    performance.mark("maps");
  });

  function draw() {
    const items = listed(net, open);
    const { columns, lanes, edges, count, laneCount } = placed(net, items);
    const few = laneCount === 1 && items.length <= FEW;
    const maps = few ? 4 : laneCount <= 2 ? 4 : 2;
    const across = few ? 1 : 2;
    const side = few ? 3.25 : (WIDTH - 1.6) / 2;
    const height = 5.6 + (maps / across) * (side + 0.25);
    const x = (/** @type {number} */ column) => column * (WIDTH + GAP);
    const y = (/** @type {number} */ lane) => lane * (height + LANE_GAP) + 0.5;
    const totalWidth = x(count - 1) + WIDTH + 0.5;
    const totalHeight = y(laneCount - 1) + height + 1;
    const lines = svg("svg", {
      class: "edges", "aria-hidden": "true", viewBox: `0 0 ${totalWidth} ${totalHeight}`,
      style: { width: `${totalWidth}rem`, height: `${totalHeight}rem` },
    });
    const middle = height * 0.42;
    for (const { from, to, lane } of edges) {
      const start = [x(columns[from]) + WIDTH, y(lanes[from]) + middle];
      const end = [x(columns[to]), y(lanes[to]) + middle];
      const [first, last, level] = [start[0] + GAP, end[0] - GAP, y(lane) + middle];
      const between = last > first ? [[first, level], [last, level]] : [];
      lines.append(svg("path", { d: edge(/** @type {import("d3-shape").Point[]} */ ([start, ...between, end])) }));
    }
    watcher.disconnect();
    visible.clear();
    filled.clear();
    const cards = items.map((item, i) => card(net, item, {
      maps: Math.min(maps, item.last >= 0 ? mapCount(net.nodes[item.last].shape) : 0), across, side,
      style: { left: `${x(columns[i])}rem`, top: `${y(lanes[i])}rem`, width: `${WIDTH}rem`, height: `${height}rem` },
      choose: (node) => choose({ node, channel: source.channel(node), position: null }),
      toggle: () => {
        if (open.has(item.fold)) open.delete(item.fold);
        else open.add(item.fold);
        draw();
        /** @type {HTMLElement | null} */ (strip.querySelector(`[data-fold="${item.fold}"]`))?.focus();
      },
    }));
    const list = el("ol", { class: "cards", style: { width: `${totalWidth}rem`, height: `${totalHeight}rem` } }, ...cards);
    const kept = strip.scrollLeft;
    strip.replaceChildren(el("div", { class: "drawing" }, lines, list));
    strip.scrollLeft = kept;
    cards.forEach((c) => watcher.observe(c));
    select();
  }

  function select() {
    for (const button of strip.querySelectorAll("button.open")) {
      const node = Number(/** @type {HTMLElement} */ (button.closest("[data-node]")).dataset.node);
      button.setAttribute("aria-pressed", String(node === chosen.node));
    }
  }
  const refill = () => {
    filled.clear();
    fill();
  };
  on(["turn", "depth"], refill);
  on(["node"], select);
  onScheme(refill);
  draw();
  words(net);
  costs(net);
}

/** How many maps a shape has: rows of values are one picture. @param {number[]} shape */
function mapCount(shape) {
  return shape.length > 1 ? shape[shape.length - 1] : 1;
}

/**
 * What gets a card: single nodes, and folds that are closed.
 * @param {Net} net
 * @param {Set<number>} open
 * @returns {Item[]}
 */
function listed(net, open) {
  const made = [];
  let at = 0;
  const starts = new Map(net.folds.map((fold, i) => [fold.first, i]));
  while (at < net.nodes.length) {
    const fold = starts.get(at) ?? -1;
    if (fold >= 0 && !open.has(fold)) {
      made.push({ ...net.folds[fold], folded: true, fold });
      at = net.folds[fold].last + 1;
    } else {
      const around = net.folds.findIndex((f) => f.first <= at && at <= f.last);
      made.push({ first: at, last: at, title: net.nodes[at].path, folded: false, fold: around });
      at++;
    }
  }
  return made;
}

/**
 * A column for each item, behind all that it reads; a lane for each item and each line that passes others by.
 * @param {Net} net
 * @param {Item[]} items
 */
function placed(net, items) {
  /** @type {Map<number, number>} */
  const home = new Map();
  items.forEach((item, i) => {
    for (let n = item.first; n <= item.last; n++) home.set(n, i);
  });
  const reads = items.map((item, i) => {
    const found = new Set();
    for (let n = item.first; n <= item.last; n++) {
      for (const from of net.nodes[n].inputs) if (from >= 0 && home.get(from) !== i) found.add(home.get(from));
    }
    return /** @type {number[]} */ ([...found]);
  });
  /** @type {number[]} */
  const columns = [];
  reads.forEach((from, i) => (columns[i] = from.length ? Math.max(...from.map((j) => columns[j])) + 1 : 0));
  /** @type {Set<number>[]} */
  const taken = [];
  /** @param {number} lane @param {number} from @param {number} to */
  const free = (lane, from, to) => {
    for (let c = from; c <= to; c++) if (taken[lane]?.has(c)) return false;
    return true;
  };
  /** @param {number} lane @param {number} from @param {number} to */
  const take = (lane, from, to) => {
    taken[lane] ??= new Set();
    for (let c = from; c <= to; c++) taken[lane].add(c);
  };
  /** @param {number} wish @param {number} from @param {number} to */
  const lane = (wish, from, to) => {
    if (free(wish, from, to)) return wish;
    let n = 0;
    while (!free(n, from, to)) n++;
    return n;
  };
  /** @type {number[]} */
  const lanes = [];
  const edges = [];
  for (let i = 0; i < items.length; i++) {
    const wish = reads[i].length ? Math.min(...reads[i].map((j) => lanes[j])) : 0;
    lanes[i] = lane(wish, columns[i], columns[i]);
    take(lanes[i], columns[i], columns[i]);
  }
  for (let i = 0; i < items.length; i++) {
    for (const from of reads[i]) {
      const [first, last] = [columns[from] + 1, columns[i] - 1];
      const along = last >= first ? lane(lanes[i], first, last) : lanes[i];
      if (last >= first) take(along, first, last);
      edges.push({ from, to: i, lane: along });
    }
  }
  return { columns, lanes, edges, count: Math.max(...columns) + 1, laneCount: taken.length };
}

/**
 * @param {Net} net
 * @param {Item} item
 * @param {{maps: number, across: number, side: number, style: Record<string, string>, toggle: () => void,
 *   choose: (node: number) => void}} how
 */
function card(net, item, how) {
  const { maps, across, side, style, toggle } = how;
  const node = net.nodes[item.last];
  const layers = item.last - item.first + 1;
  let parameters = 0;
  for (let n = item.first; n <= item.last; n++) parameters += net.nodes[n].parameters;
  const size = { width: `${side}rem`, height: `${node.shape.length === 2 ? side * 0.6 : side}rem` };
  const canvases = Array.from({ length: maps }, () => el("canvas", { class: "pixels", style: size }));
  const made = el("li", { class: item.folded ? "card folded" : "card", "data-node": item.last, style });
  const button = el("button", { type: "button", class: "open", title: item.title },
    el("span", { class: "name" }, item.title),
    el("span", { class: "kind" }, item.folded ? `${layers} layers` : node.kind),
    el("span", { class: across === 1 ? "maps one" : "maps two", role: "img" }, ...canvases),
    el("span", { class: "shape" }, by(node.shape)),
    el("span", { class: "kind" }, parameters ? `${whole(parameters)} weights` : "\u00a0"),
  );
  button.addEventListener("click", () => how.choose(item.last));
  made.append(button);
  if (item.fold >= 0 && (item.folded || net.folds[item.fold].first === item.first)) {
    const title = net.folds[item.fold].title;
    made.append(el("button", {
      type: "button", class: "fold", "data-fold": item.fold, "aria-expanded": String(!item.folded), onclick: toggle,
      "aria-label": `${item.folded ? "Unfold" : "Fold"} ${title}`,
    }, item.folded ? "+" : "\u2212"));
  }
  return made;
}

/** @param {Net} net */
function words(net) {
  const folded = net.folds.length ? " Repeated blocks are folded; + unfolds them." : "";
  byId("net-words").textContent =
    `${net.nodes.length} layers from left to right, with their first activation maps for this ${sort(net.inputs[0])}: ` +
    `orange above zero, blue below.${folded} Choose one to look inside.`;
  byId("title").textContent = net.title;
  document.title = `${net.title} \u2013 convolve look`;
  byId("totals").textContent =
    `${whole(net.parameters)} parameters, ${large(net.multiply_adds)} multiply-adds for ${net.inputs.map((i) => (net.inputs.length > 1 ? `${i.name} of ` : `${sort(i) === "input" ? "an" : "a"} ${sort(i)} of `) + by(i.shape)).join(" and ")}`;
  byId("note").textContent = net.note;
  byId("note").hidden = !net.note;
}

/** @param {Net} net */
function costs(net) {
  const head = ["layer", "", "output", "parameters", "if fully connected", "multiply-adds", "if fully connected", "sees"];
  const rows = net.nodes.map((node) => el("tr", {},
    el("th", { scope: "row" }, node.path),
    el("td", { class: "left" }, node.kind),
    el("td", {}, by(node.shape)),
    el("td", {}, node.parameters ? whole(node.parameters) : ""),
    el("td", {}, node.dense ? large(node.dense.parameters) : ""),
    el("td", {}, node.multiply_adds ? large(node.multiply_adds) : ""),
    el("td", {}, node.dense ? large(node.dense.multiply_adds) : ""),
    el("td", {}, by(node.sees)),
  ));
  const table = el("table", { class: "numbers" },
    el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, ...rows));
  /** @type {HTMLElement} */ (byId("costs").querySelector("div")).replaceChildren(table);
}
