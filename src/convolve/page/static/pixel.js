// One value, number by number: the window on what is read, the products, their sum, and what becomes of it.

import { el, svg, byId, by, number, percent, whole, latest } from "page/dom.js";
import { chosen, choose, on, onPicture, placeOf, read as readOf } from "page/state.js";
import { paintValues } from "page/paint.js";
import { css, darkInk, onScheme } from "page/colour.js";
import { positionAt } from "page/layer.js";

/**
 * @typedef {import("page/state.js").Net} Net
 * @typedef {import("page/message.js").Tensor} Tensor
 */

const TOLERANCE = 1e-6; // of the size of what is added up
const CHANNELS = 8; // whose products are shown at a time
const LARGEST = 12; // contributions that are shown of a fully-connected layer
const STEPS = 200; // of a whole map, when it is played
const PACE = 60; // milliseconds between two

/**
 * @param {import("page/source.js").Source} source
 * @param {Net} net
 */
export function showPixel(source, net) {
  const place = byId("pixel");
  const head = el("h2", { id: "pixel-head" }, "One value");
  const stage = el("div", { class: "stage" });
  const controls = el("div", { class: "row controls" });
  const made = el("div", { id: "made" });
  place.replaceChildren(head, stage, controls, made);

  const input = mapFigure("read");
  const output = mapFigure("made");
  stage.append(input.figure, el("span", { class: "arrow", "aria-hidden": "true" }, "\u2192"), output.figure);

  /** @type {Tensor | null} */
  let map = null;
  let scale = 1;
  let known = Infinity; // positions of the map that are filled in, in scan order
  let read = 0; // the channel of what is read that is drawn
  let page = 0; // of the channels' products
  /** @type {{node: number, channel: number, turn: number, depth: number} | null} */
  let drawn = null;
  /** @type {ReturnType<typeof setInterval> | null} */
  let playing = null;

  const play = el("button", { type: "button", id: "play" }, "Play");
  const slider = el("input", { type: "range", id: "slide", min: 0, step: 1, "aria-label": "Position of the window, in scan order" });
  const where = el("output", { id: "where" });
  controls.append(play, slider, where);
  play.addEventListener("click", () => (playing ? stop() : start()));
  slider.addEventListener("input", () => to(Number(slider.value)));

  const shape = () => net.nodes[chosen.node].shape;
  const plane = () => shape().slice(0, -1).slice(-2);
  const count = () => plane().reduce((a, b) => a * b, 1);
  /** @param {number} index */
  function to(index) {
    known = index + 1;
    choose({ position: unscan(index) });
  }
  /** @param {number} index In scan order of what is drawn. */
  function unscan(index) {
    const sizes = plane();
    if (sizes.length < 2) return sizes.length ? [index] : [];
    const outer = positionAt(shape(), 0, 0).slice(0, -2);
    return [...outer, Math.floor(index / sizes[1]), index % sizes[1]];
  }
  function scan() {
    const at = (chosen.position ?? []).slice(-2);
    return at.length === 2 ? at[0] * plane()[1] + at[1] : (at[0] ?? 0);
  }
  function start() {
    play.textContent = "Pause";
    let index = scan() + 1 >= count() ? 0 : scan();
    const step = Math.max(1, Math.round(count() / STEPS));
    playing = setInterval(() => {
      to(Math.min(index, count() - 1));
      if (index >= count() - 1) stop();
      index += step;
    }, PACE);
  }
  function stop() {
    if (playing) clearInterval(playing);
    playing = null;
    play.textContent = "Play";
  }

  const fill = latest(async () => {
    if (!chosen.turn) return;
    const { node, channel, turn, depth } = chosen;
    const vector = net.nodes[node].shape.length === 1;
    if (!drawn || drawn.node !== node || drawn.channel !== channel || drawn.turn !== turn || drawn.depth !== depth) {
      const got = await source.ask({ ask: "map", node, channel: vector ? 0 : channel, depth }).catch(() => null);
      place.hidden = !got;
      if (!got) return;
      map = got.arrays.map;
      scale = got.header.scale;
      drawn = { node, channel, turn, depth };
    }
    if (node !== chosen.node || channel !== chosen.channel) return;
    if (!chosen.position || chosen.position.length !== shape().length - 1) {
      choose({ position: vector ? [] : unscan(largest(/** @type {Tensor} */ (map))) });
    }
    const position = [.../** @type {number[]} */ (chosen.position), channel];
    const { header, arrays } = await source.ask({ ask: "pixel", node, position });
    if (node !== chosen.node) return;
    const at = header.pixel.position.slice(0, -1);
    if (at.join() !== position.slice(0, -1).join()) choose({ position: at }); // the nearest that a file holds
    await show(header.pixel, arrays);
  });

  /**
   * @param {any} pixel
   * @param {Record<string, Tensor>} arrays
   */
  async function show(pixel, arrays) {
    const node = net.nodes[chosen.node];
    const at = pixel.position.slice(0, -1);
    const vector = node.shape.length === 1;
    slider.max = String(count() - 1);
    slider.value = String(scan());
    for (const part of [slider, play]) part.hidden = vector;
    where.textContent = vector ? "" : `${whole(scan() + 1)} of ${whole(count())}`;
    if (map) {
      paintValues(output.canvas, map.data, map.shape, scale, known);
      output.size(map.shape);
      output.mark([vector ? unflat(chosen.channel, map.shape) : at.slice(-2)]);
      output.say(vector ? "all values" : `map ${chosen.channel} of ${pixel.layer}`, chosen.position ?? []);
    }
    const how = pixel.made;
    const channels = how.how === "products" ? arrays.patch.shape.at(-1) ?? 1 : 1;
    if (read >= channels || how.how !== "products") read = 0;
    if (page * CHANNELS >= channels) page = 0;
    await showRead(how, arrays);
    head.textContent = `One value: ${pixel.layer}, ${at.length ? `map ${pixel.position.at(-1)} at ${at.join(", ")}` : `value ${pixel.position.at(-1)}`}`;
    made.replaceChildren(...explained(net, pixel, arrays, { read, page, pick: (c) => {
      read = c;
      fill();
    }, turn: (p) => {
      page = p;
      fill();
    } }));
  }

  /**
   * The map that is read, with the window upon it.
   * @param {any} how
   * @param {Record<string, Tensor>} arrays
   */
  async function showRead(how, arrays) {
    const from = placeOf(net, how.sources[0]);
    const { name, shape: spatial } = readOf(net, from);
    const rank = arrays.places ? arrays.places.shape.at(-1) ?? 0 : 0;
    input.figure.hidden = !rank || spatial.length !== rank + 1;
    if (input.figure.hidden) return;
    const channel = how.how === "pooled" ? how.channel : how.first_channel + read;
    const places = [];
    for (let i = 0; i < arrays.places.data.length; i += rank) places.push(Array.from(arrays.places.data.slice(i, i + rank)));
    const depth = rank > 2 && spatial[0] > 1 ? clamp(places[Math.floor(places.length / 2)][0], spatial[0]) / (spatial[0] - 1) : 0.5;
    const got = from < 0 ? pictureMap(-1 - from, channel, depth) : await source.ask({ ask: "map", node: from, channel, depth }).catch(() => null);
    input.figure.hidden = !got;
    if (!got) return;
    const { data, shape } = got.arrays.map;
    paintValues(input.canvas, data, shape, got.header.scale);
    input.size(shape);
    input.mark(places.map((p) => p.slice(-2)));
    input.say(`channel ${channel} of ${name}`, null);
  }

  /** @param {number} number Of the input. @param {number} channel @param {number} depth */
  function pictureMap(number, channel, depth) {
    const { data, shape } = chosen.pictures[number];
    const [spatial, channels] = [shape.slice(0, -1), shape[shape.length - 1]];
    const sizes = spatial.slice(-2);
    const size = sizes.reduce((a, b) => a * b, 1);
    const first = spatial.length > 2 ? Math.floor(depth * (spatial[0] - 1) + 0.5) * size : 0;
    const values = Float32Array.from({ length: size }, (_, i) => data[(first + i) * channels + channel]);
    return { header: { scale: Math.max(...net.inputs[number].range.map(Math.abs)) }, arrays: { map: { data: values, shape: sizes } } };
  }

  output.canvas.classList.add("pickable");
  output.canvas.tabIndex = 0;
  output.canvas.addEventListener("click", (event) => {
    const box = output.canvas.getBoundingClientRect();
    const [down, across] = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    stop();
    known = Infinity;
    if (shape().length > 1) choose({ position: positionAt(shape(), down, across) });
    else if (map) {
      const [r, c] = [Math.floor(down * map.shape[0]), Math.floor(across * map.shape[1])];
      choose({ channel: Math.min(shape()[0] - 1, r * map.shape[1] + c) });
    }
  });
  output.canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (!move || !map) return;
    event.preventDefault();
    stop();
    known = Infinity;
    const step = map.shape.length === 1 ? move[0] + move[1] : move[0] * map.shape[1] + move[1];
    if (shape().length === 1) choose({ channel: clamp(chosen.channel + step, shape()[0]) });
    else choose({ position: unscan(clamp(scan() + step, count())) });
  });

  on(["node", "channel"], () => {
    stop();
    known = Infinity;
    read = 0;
    page = 0;
  });
  on(["node", "channel", "position", "depth"], fill);
  onPicture(place, fill);
  onScheme(fill);
}

/** @param {number} value @param {number} count */
function clamp(value, count) {
  return Math.min(Math.max(value, 0), count - 1);
}

/** The largest of numbers, without its sign. @param {ArrayLike<number>} numbers */
function size(numbers) {
  let most = 0;
  for (let i = 0; i < numbers.length; i++) most = Math.max(most, Math.abs(numbers[i]));
  return most;
}

/** @param {Tensor} map */
function largest({ data }) {
  let best = 0;
  for (let i = 1; i < data.length; i++) if (data[i] > data[best] || Number.isNaN(data[best])) best = i;
  return best;
}

/** @param {number} index @param {number[]} shape */
function unflat(index, shape) {
  return [Math.floor(index / shape[1]), index % shape[1]];
}

/** A map with marks on it and words below it. @param {string} kind */
function mapFigure(kind) {
  const canvas = el("canvas", { class: "pixels", role: "img" });
  const marks = svg("svg", { class: "marks", preserveAspectRatio: "none", "aria-hidden": "true" });
  const caption = el("figcaption", {});
  const frame = el("div", { class: "frame" }, canvas, marks);
  let [rows, columns] = [1, 1];
  return {
    figure: el("figure", { class: `map-figure ${kind}` }, frame, caption),
    canvas,
    /** @param {number[]} shape */
    size(shape) {
      [rows, columns] = shape.length === 1 ? [1, shape[0]] : shape;
      marks.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
      frame.classList.toggle("signal", shape.length === 1);
      frame.style.aspectRatio = shape.length === 1 ? "" : `${columns} / ${rows}`;
    },
    /** @param {number[][]} places Positions that are marked, each with a line around; all of them have one box. */
    mark(places) {
      marks.replaceChildren();
      const two = places.filter((p) => p.length).map((p) => (p.length === 1 ? [0, p[0]] : p));
      if (!two.length) return;
      const [top, left] = [0, 1].map((d) => Math.min(...two.map((p) => p[d])));
      const [bottom, right] = [0, 1].map((d) => Math.max(...two.map((p) => p[d])));
      for (const name of ["halo", "line"]) {
        marks.append(svg("rect", { class: name, x: left, y: top, width: right - left + 1, height: bottom - top + 1 }));
      }
    },
    /** @param {string} what @param {number[] | null} position */
    say(what, position) {
      caption.textContent = what;
      canvas.setAttribute("aria-label", `${what}, ${by([rows, columns])}` + (position ? `. Chosen: ${position.join(", ")}. Arrow keys choose another` : ""));
    },
  };
}

/**
 * How a value came about, in numbers.
 * @param {Net} net
 * @param {any} pixel
 * @param {Record<string, Tensor>} arrays
 * @param {{read: number, page: number, pick: (c: number) => void, turn: (p: number) => void}} how
 * @returns {HTMLElement[]}
 */
function explained(net, pixel, arrays, how) {
  const { made } = pixel;
  const parts = [];
  if (made.how === "products") parts.push(...products(pixel, arrays, how));
  else if (made.how === "pooled") parts.push(...pooled(made, arrays));
  else if (made.how === "normalised") parts.push(...normalised(made));
  else if (made.how === "shares") parts.push(...shares(net, made, arrays));
  else if (made.how === "mapped") parts.push(equation([pixel.kind, "(", value(made.x), ") = ", value(made.y)]));
  else if (made.how === "joined") parts.push(joined(net, made));
  else if (made.how === "taken") parts.push(el("p", { class: "words" }, `It is the value of ${sourceName(net, made.sources[0])} at ${made.position.join(", ")}: `, value(made.x), "."));
  else parts.push(el("p", { class: "words" }, `Computed by ${made.op}: `, value(made.y), "."));
  if (made.how !== "products") parts.push(verdict(made.total, pixel.value, Math.max(Math.abs(made.total), made.scale)));
  if (pixel.after.length) parts.push(after(pixel));
  return parts;
}

/** @param {number} n */
function value(n) {
  return el("span", { class: "value", title: String(n) }, number(n, 6));
}

/** @param {(string | Node)[]} parts */
function equation(parts) {
  return el("p", { class: "equation" }, ...parts);
}

/**
 * Whether the numbers shown add up to the value that the net's trace has.
 * @param {number} total
 * @param {number} traced
 * @param {number} scale
 */
function verdict(total, traced, scale) {
  const error = scale ? Math.abs(total - traced) / scale : Math.abs(total - traced);
  const equal = error <= TOLERANCE;
  return el("p", { class: equal ? "verdict-line equal" : "verdict-line differs", id: "verdict-line", "data-total": total, "data-traced": traced },
    equal ? "\u2713 " : "\u2260 ",
    "The map holds ", value(traced), ` here: ${equal ? "equal" : "not equal"} to within ${number(TOLERANCE, 1)} of the size of what is added up (`,
    `${number(scale, 3)}); the difference is ${number(Math.abs(total - traced), 2)}.`);
}

/**
 * @param {any} pixel
 * @param {Record<string, Tensor>} arrays
 * @param {{read: number, page: number, pick: (c: number) => void, turn: (p: number) => void}} how
 */
function products(pixel, { patch, weights, inside }, { read, page, pick, turn }) {
  const { made } = pixel;
  const channels = patch.shape[patch.shape.length - 1];
  const kernel = patch.shape.slice(0, -1);
  const taps = patch.data.length / channels;
  const product = Float64Array.from(patch.data, (x, i) => x * weights.data[i]);
  const sums = Array.from({ length: channels }, (_, c) => {
    let sum = 0;
    for (let t = 0; t < taps; t++) sum += product[t * channels + c];
    return sum;
  });
  let [sum, all] = [0, Math.abs(made.bias)];
  for (const p of product) all += Math.abs(p);
  for (const s of sums) sum += s;
  const total = sum + made.bias;
  const scales = [patch.data, weights.data, product].map(size);
  const parts = [];
  if (kernel.length) {
    const shown = [];
    for (let c = page * CHANNELS; c < Math.min(channels, (page + 1) * CHANNELS); c++) {
      const column = (/** @type {Tensor["data"]} */ a) => Array.from({ length: taps }, (_, t) => a[t * channels + c]);
      const grids = [patch.data, weights.data, product].map((a, k) => grid(column(a), kernel, scales[k], k === 0 ? inside.data : null));
      shown.push(el("div", { class: c === read ? "channel chosen" : "channel" },
        el("button", { type: "button", class: "channel-name", onclick: () => pick(c), "aria-pressed": String(c === read), title: "Show this channel above" }, `channel ${made.first_channel + c}`),
        grids[0], sign("\u00d7"), grids[1], sign("="), grids[2], sign("\u03a3"), el("span", { class: "sum" }, value(sums[c]))));
    }
    parts.push(el("p", { class: "words" }, `The window's ${by(kernel)} positions`, channels > 1 ? ` in each of ${whole(channels)} channels` : "", ", times the filter, number by number:"));
    parts.push(el("div", { class: "channels", role: "group", "aria-label": "patch times filter" }, ...shown));
    if (channels > CHANNELS) parts.push(pages(channels, page, turn), bars(sums, made.first_channel, page, turn));
  } else {
    parts.push(contributions(patch.data, weights.data, product));
  }
  const terms = kernel.length && channels > 1 && channels <= CHANNELS ? sums.flatMap((s, c) => [c ? plus(s) : number(s, 5)]) : ["sum of products ", value(sum)];
  const bias = made.bias ? [plus(made.bias), el("span", { class: "hint" }, " bias")] : [];
  parts.push(equation([...terms, ...bias, " = ", el("strong", { id: "total", "data-value": total }, number(total, 7))]));
  parts.push(verdict(total, pixel.value, all));
  if (made.winograd) {
    parts.push(el("p", { class: "words note" }, "Predictions compute this layer by Winograd\u2019s algorithm, which takes fewer multiplications and adds in another order; this page shows the definition."));
  }
  return parts;
}

/** @param {number} n */
function plus(n) {
  return n < 0 ? ` \u2212 ${number(-n, 5)}` : ` + ${number(n, 5)}`;
}

/** @param {string} text */
function sign(text) {
  return el("span", { class: "sign" }, text);
}

/**
 * A kernel's numbers as a table; of more than two dimensions, the last two are tables one below the other.
 * @param {number[]} values
 * @param {number[]} kernel
 * @param {number} scale
 * @param {Tensor["data"] | null} inside
 */
function grid(values, kernel, scale, inside) {
  const columns = kernel[kernel.length - 1];
  const rows = kernel.length > 1 ? kernel[kernel.length - 2] : 1;
  const body = [];
  for (let start = 0; start < values.length; start += columns) {
    const cells = [];
    for (let i = start; i < start + columns; i++) {
      const padding = inside !== null && !inside[i];
      const t = scale ? values[i] / scale : 0;
      cells.push(el("td", {
        class: padding ? "padding" : darkInk(t) ? "dark" : "light", style: { background: padding ? "" : css(t) },
        title: padding ? "padding" : String(values[i]),
      }, padding ? "0" : short(values[i])));
    }
    body.push(el("tr", start && (start / columns) % rows === 0 ? { class: "next" } : {}, ...cells));
  }
  return el("table", { class: columns > 6 ? "kernel long" : "kernel" }, el("tbody", {}, ...body));
}

/** A number for a small cell. @param {number} n */
function short(n) {
  const size = Math.abs(n);
  const made = size >= 99.5 ? size.toFixed(0) : size >= 9.95 ? size.toFixed(1) : size.toFixed(2);
  return (n < 0 && Number(made) ? "\u2212" : "") + made;
}

/** @param {number} channels @param {number} page @param {(p: number) => void} turn */
function pages(channels, page, turn) {
  const last = Math.ceil(channels / CHANNELS) - 1;
  return el("p", { class: "row" },
    el("button", { type: "button", disabled: page === 0, onclick: () => turn(page - 1) }, "\u2190 channels"),
    ` ${page * CHANNELS} to ${Math.min(channels, (page + 1) * CHANNELS) - 1} of ${whole(channels)} `,
    el("button", { type: "button", disabled: page === last, onclick: () => turn(page + 1) }, "channels \u2192"));
}

/**
 * Every channel's sum as a bar.
 * @param {number[]} sums
 * @param {number} first
 * @param {number} page
 * @param {(p: number) => void} turn
 */
function bars(sums, first, page, turn) {
  const most = Math.max(...sums.map(Math.abs)) || 1;
  const drawing = svg("svg", { class: "sums", viewBox: `0 0 ${sums.length} 2`, preserveAspectRatio: "none", role: "img",
    "aria-label": `Sum of each of ${sums.length} channels; the largest is ${number(most, 3)} without its sign, of channel ${first + sums.findIndex((s) => Math.abs(s) === most)}` });
  drawing.append(svg("rect", { class: "page", x: page * CHANNELS, y: 0, width: CHANNELS, height: 2 }));
  sums.forEach((s, c) => {
    const height = Math.abs(s) / most;
    drawing.append(svg("rect", { class: s < 0 ? "below" : "above", x: c + 0.1, y: s < 0 ? 1 : 1 - height, width: 0.8, height }));
  });
  drawing.addEventListener("click", (event) => {
    const box = drawing.getBoundingClientRect();
    turn(Math.floor((((event.clientX - box.left) / box.width) * sums.length) / CHANNELS));
  });
  return /** @type {any} */ (drawing);
}

/**
 * The largest products of a fully-connected layer.
 * @param {Tensor["data"]} x
 * @param {Tensor["data"]} w
 * @param {Float64Array} product
 */
function contributions(x, w, product) {
  const order = Array.from(product.keys()).sort((a, b) => Math.abs(product[b]) - Math.abs(product[a]));
  const most = Math.abs(product[order[0]]) || 1;
  const rest = order.slice(LARGEST).reduce((a, i) => a + product[i], 0);
  const rows = order.slice(0, LARGEST).map((i) => el("tr", {},
    el("th", { scope: "row" }, String(i)), el("td", {}, number(x[i])), el("td", {}, number(w[i])), el("td", {}, number(product[i])),
    el("td", { class: "left" }, el("span", { class: product[i] < 0 ? "bar below" : "bar above", style: { width: `${(8 * Math.abs(product[i])) / most}rem` } }))));
  if (order.length > LARGEST) {
    rows.push(el("tr", {}, el("th", { scope: "row" }, `${whole(order.length - LARGEST)} others`), el("td"), el("td"), el("td", {}, number(rest)), el("td")));
  }
  return el("table", { class: "numbers contributions" },
    el("caption", {}, "The largest contributions"),
    el("thead", {}, el("tr", {}, ...["input", "value", "weight", "product", ""].map((h) => el("th", { scope: "col" }, h)))),
    el("tbody", {}, ...rows));
}

/** @param {any} made @param {Record<string, Tensor>} arrays */
function pooled(made, { patch, inside }) {
  const kernel = patch.shape;
  const scale = size(patch.data);
  const parts = [];
  if (kernel.length && patch.data.length <= 400) {
    const table = grid(Array.from(patch.data), kernel, scale, inside.data);
    if (made.winner) {
      const flat = made.winner.reduce((/** @type {number} */ a, /** @type {number} */ n, /** @type {number} */ d) => a * kernel[d] + n, 0);
      table.querySelectorAll("td")[flat].classList.add("winner");
    }
    parts.push(el("div", { class: "channels" }, el("div", { class: "channel" }, table)));
  }
  const read = Array.from(inside.data).filter(Boolean).length;
  const words = made.kind === "max" ? "The largest of these wins: " : made.kind === "avg" ? `Their sum over ${number(made.divisor)}: ` : "Their sum: ";
  parts.push(equation([`${whole(read)} values. `, words, el("strong", { id: "total", "data-value": made.total }, number(made.total, 7))]));
  return parts;
}

/** @param {any} made */
function normalised(made) {
  const rows = [["mean", made.mean], ["variance", made.variance], ["scale", made.by], ["shift", made.shift]];
  return [
    el("p", { class: "words" }, "The norm\u2019s four numbers for this map, and the value that comes in:"),
    el("dl", { class: "four" }, ...[["x", made.x], ...rows].flatMap(([name, n]) => [el("dt", {}, name), el("dd", {}, value(/** @type {number} */ (n)))])),
    equation(["(", value(made.x), " \u2212 ", value(made.mean), ") / \u221a(", value(made.variance), " + ", number(made.epsilon), ") \u00d7 ", value(made.by), " + ", value(made.shift),
      " = ", el("strong", { id: "total", "data-value": made.total }, number(made.total, 7))]),
  ];
}

/** @param {Net} net @param {string} source One, or several with commas. */
function sourceName(net, source) {
  return source.split(", ").map((s) => readOf(net, placeOf(net, s)).name).join(", ");
}

/** @param {Net} net @param {any} made */
function joined(net, made) {
  const sign = /** @type {Record<string, string>} */ ({ add: " + ", multiply: " \u00d7 " })[made.function] ?? ` ${made.function} `;
  const terms = made.terms.flatMap((/** @type {number} */ t, /** @type {number} */ i) => [
    i ? sign : "", value(t), el("span", { class: "hint" }, ` ${sourceName(net, made.names[i])}`)]);
  return equation([...terms, " = ", el("strong", { id: "total", "data-value": made.total }, number(made.total, 7))]);
}

/** @param {Net} net @param {any} made @param {Record<string, Tensor>} arrays */
function shares(net, made, arrays) {
  const data = Array.from(arrays.shares.data);
  const order = data.map((_, i) => i).sort((a, b) => data[b] - data[a]).slice(0, LARGEST);
  return [
    el("p", { class: "words" }, "exp of each value, over the sum of them all:"),
    el("ol", { class: "bars" }, ...order.map((i) => el("li", { class: i === made.index ? "best" : "" },
      el("span", { class: "class" }, net.classes?.[i] ?? String(i)),
      el("span", { class: "bar" }, el("span", { style: { width: `${100 * data[i]}%` } })),
      el("span", { class: "share" }, percent(data[i]))))),
  ];
}

/** @param {any} pixel */
function after(pixel) {
  const steps = pixel.after.flatMap((/** @type {any} */ step) => [
    el("li", {}, el("button", { type: "button", class: "link", onclick: () => go(step.layer) }, step.layer), ` (${step.kind}) makes of it `, value(step.value))]);
  return el("div", {}, el("p", { class: "words" }, "Then:"), el("ol", { class: "then" }, ...steps));
}

/** @param {string} path */
function go(path) {
  document.dispatchEvent(new CustomEvent("go", { detail: path }));
}
