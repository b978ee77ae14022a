// The picture: shown, drawn upon, chosen from the samples, or dropped as a file.

import { el, svg, byId, latest, by } from "page/dom.js";
import { chosen, choose, on, sort, whichInput } from "page/state.js";
import { paintPicture, paintTrace } from "page/paint.js";
import { onScheme } from "page/colour.js";
import { showAnswer } from "page/answer.js";
import { heat } from "page/heat.js";

/**
 * @typedef {import("page/source.js").Source} Source
 * @typedef {import("page/state.js").Net} Net
 */

const DRAWABLE = 64; // positions along a dimension that a hand can draw
const PAGE = 24; // samples that are offered at a time

/**
 * @param {Source} source
 * @param {Net} net
 * @param {(sentence: string) => void} notice
 */
export function showPicture(source, net, notice) {
  const look = latest(async (/** @type {Record<string, any>} */ what, /** @type {any} */ arrays = {}) => {
    const { header, arrays: got } = await source.ask({ ask: "look", ...what }, arrays);
    notice("");
    showAnswer(net, header, what);
    performance.mark("answer");
    choose({ pictures: net.inputs.map((_, i) => got[`picture${i}`]), turn: chosen.turn + 1, best: header.best ?? 0 });
  });
  document.addEventListener("again", () => look({ again: true })); // the net has learnt meanwhile

  const boards = net.inputs.map((_, i) => board(source, net, i, look));
  const show = () => boards.forEach((place, i) => (place.hidden = i !== chosen.input));
  on(["input"], show);
  show();
  byId("picture-head").textContent = `The ${sort(net.inputs[0])}`;
  byId("choose-head").textContent = `Another ${sort(net.inputs[0])}`;
  byId("board").replaceChildren(...(boards.length > 1 ? [inputChoice(net)] : []), ...boards);
  chooser(source, net, look, notice);
  return look({ sample: 0 });
}

/** Which of several inputs is drawn. @param {Net} net */
function inputChoice(net) {
  const choice = el("select", { id: "input" }, ...net.inputs.map((input, i) => el("option", { value: i }, input.name)));
  choice.addEventListener("change", () => choose({ input: Number(choice.value), box: null }));
  return el("p", { class: "row" }, el("label", {}, "Input ", choice));
}

/**
 * One input: its picture, what is marked on it, and the tools for it.
 * @param {Source} source
 * @param {Net} net
 * @param {number} number
 * @param {(what: any, arrays?: any) => Promise<void>} look
 */
function board(source, net, number, look) {
  const { shape, range } = net.inputs[number];
  const [low, high] = range;
  const spatial = shape.length > 1 ? shape.slice(0, -1) : square(shape[0] ?? 1);
  const channels = shape.length > 1 ? shape[shape.length - 1] : 1;
  const drawable = source.live && shape.length === 3 && Math.max(...spatial) <= DRAWABLE && [1, 3].includes(channels);

  const id = number ? `picture-canvas-${number}` : "picture-canvas";
  const canvas = el("canvas", { id, role: "img", class: "pixels" });
  const [rows, columns] = spatial.length === 1 ? [1, spatial[0]] : spatial.slice(-2);
  const marks = svg("svg", { class: "marks", viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const over = heat(source, net, number);
  const frame = el("div", { class: spatial.length === 1 ? "frame signal" : "frame" }, canvas, over.canvas, marks);
  if (spatial.length > 1) frame.style.aspectRatio = `${columns} / ${rows}`;

  function paint() {
    const picture = chosen.pictures[number];
    if (!picture) return;
    const described = `The ${sort(net.inputs[number])}, ${by(shape)}`;
    canvas.setAttribute("aria-label", drawable ? `${described}. Arrow keys move the pen, space draws.` : described);
    if (spatial.length === 1) {
      const middle = (low + high) / 2;
      const values = Array.from({ length: spatial[0] }, (_, i) => (2 * (picture.data[i * channels] - middle)) / (high - low));
      paintTrace(canvas, values);
    } else {
      const plane = rows * columns * channels;
      const at = spatial.length === 3 ? Math.floor(chosen.depth * (spatial[0] - 1) + 0.5) * plane : 0;
      paintPicture(canvas, picture.data.subarray(at, at + plane), [rows, columns, channels], [low, high]);
    }
  }

  function mark() {
    const box = chosen.input === number && chosen.box && chosen.box.slice(-2);
    marks.replaceChildren();
    if (!box) return;
    const [[top, bottom], [left, right]] = box.length === 1 ? [[0, 0], box[0]] : box;
    for (const kind of ["halo", "line"]) {
      marks.append(svg("rect", { class: kind, x: left, y: top, width: right - left + 1, height: bottom - top + 1 }));
    }
  }
  on(["pictures", "depth"], paint);
  on(["box", "input"], mark);
  onScheme(paint);

  const tools = el("div", { class: "tools" });
  if (spatial.length > 2) tools.append(depthSlider(spatial[0]));
  if (drawable) tools.append(drawing(canvas, marks, look, net, number));
  tools.append(over.choice);
  return el("div", {}, frame, tools);
}

/** Rows and columns of so many numbers as a picture, nearly square. @param {number} count */
function square(count) {
  const columns = Math.ceil(Math.sqrt(count));
  return [Math.ceil(count / columns), columns];
}

/** @param {number} count */
function depthSlider(count) {
  const shown = el("output", {}, "");
  const slider = el("input", { type: "range", min: 0, max: count - 1, value: Math.floor(0.5 * (count - 1) + 0.5) });
  const follow = () => {
    shown.textContent = `${slider.value} of ${count}`;
    choose({ depth: Number(slider.value) / Math.max(1, count - 1) });
  };
  slider.addEventListener("input", follow);
  follow();
  return el("label", { class: "slider" }, "Slice ", slider, " ", shown);
}

/**
 * Drawing upon the picture by pointer, finger or keys.
 * @param {HTMLCanvasElement} canvas
 * @param {SVGElement} marks
 * @param {(what: any, arrays: any) => Promise<void>} look
 * @param {Net} net
 * @param {number} number Of the input.
 */
function drawing(canvas, marks, look, net, number) {
  const { shape, range: [low, high] } = net.inputs[number];
  const [height, width, channels] = shape;
  const radius = Math.max(height, width) / 26;
  /** @type {Uint8Array} */
  let ink = new Uint8Array(height * width * channels);
  /** @type {[number, number] | null} */
  let last = null;
  /** @type {[number, number]} */
  let pen = [Math.floor(height / 2), Math.floor(width / 2)];
  /** @type {Promise<void> | null} */
  let unanswered = null;

  /** What was drawn and is not answered yet is drawn upon; else what is shown. */
  function begin() {
    const picture = chosen.pictures[number];
    if (picture && !unanswered) ink = Uint8Array.from(picture.data, (v) => Math.round((255 * (v - low)) / (high - low)));
  }
  function send() {
    const asked = look({ ...whichInput() }, { drawing: { data: ink.slice(), shape } });
    unanswered = asked;
    asked.then(() => {
      if (unanswered === asked) unanswered = null;
    });
  }
  /** @param {[number, number]} to */
  function stroke(to) {
    const from = last ?? to;
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let s = 0; s <= steps; s++) {
      dot(from[0] + ((to[0] - from[0]) * s) / steps, from[1] + ((to[1] - from[1]) * s) / steps);
    }
    last = to;
    send();
  }
  /** @param {number} y @param {number} x */
  function dot(y, x) {
    for (let r = Math.max(0, Math.floor(y - radius - 1)); r <= Math.min(height - 1, y + radius + 1); r++) {
      for (let c = Math.max(0, Math.floor(x - radius - 1)); c <= Math.min(width - 1, x + radius + 1); c++) {
        const value = 255 * Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(r + 0.5 - y, c + 0.5 - x)));
        for (let k = 0; k < channels; k++) {
          const i = (r * width + c) * channels + k;
          ink[i] = Math.max(ink[i], value);
        }
      }
    }
  }
  /** @param {PointerEvent} event @returns {[number, number]} */
  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientY - box.top) * height) / box.height, ((event.clientX - box.left) * width) / box.width];
  }

  canvas.classList.add("drawable");
  canvas.tabIndex = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    begin();
    last = null;
    stroke(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) {
      for (const e of event.getCoalescedEvents?.() ?? [event]) stroke(place(e));
    }
  });
  const showPen = () => {
    const [y, x] = pen;
    marks.querySelector(".pen")?.remove();
    marks.append(svg("rect", { class: "pen", x, y, width: 1, height: 1 }));
  };
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (move) {
      const limit = (/** @type {number} */ v, /** @type {number} */ most) => Math.min(Math.max(v, 0), most - 1);
      pen = [limit(pen[0] + move[0], height), limit(pen[1] + move[1], width)];
    } else {
      begin();
      last = null;
      stroke([pen[0] + 0.5, pen[1] + 0.5]);
    }
    showPen();
  });
  canvas.addEventListener("blur", () => marks.querySelector(".pen")?.remove());
  const clear = el("button", { type: "button", id: number ? `clear-${number}` : "clear" }, "Clear");
  clear.addEventListener("click", () => {
    ink = new Uint8Array(height * width * channels);
    send();
  });
  return el("p", { class: "row" }, clear, el("span", { class: "hint" }, "Draw on the picture: pointer, finger or keys."));
}

/**
 * Samples to choose from, and files.
 * @param {Source} source
 * @param {Net} net
 * @param {(what: any, arrays?: any) => Promise<void>} look
 * @param {(sentence: string) => void} notice
 */
function chooser(source, net, look, notice) {
  const place = byId("choose");
  byId("choose-side").hidden = !source.live;
  const list = el("div", { class: "samples", role: "group", "aria-label": net.source || "samples" });
  let from = 0;

  async function fill() {
    const { arrays } = await source.ask({ ask: "samples", from });
    const { data, shape } = arrays.pictures;
    const size = data.length / shape[0];
    list.replaceChildren();
    for (let i = 0; i < Math.min(PAGE, shape[0]); i++) {
      const canvas = el("canvas", { class: "pixels", "aria-hidden": "true" });
      const part = data.subarray(i * size, (i + 1) * size);
      if (shape.length === 3) paintTrace(canvas, Array.from({ length: shape[1] }, (_, k) => part[k * shape[2]] / 127.5 - 1));
      else paintPicture(canvas, part, shape.length === 2 ? [1, shape[1], 1] : shape.slice(1), [0, 255]);
      const label = net.labels ? net.labels[from + i] : null;
      const name = label === null ? "" : `, ${net.classes ? net.classes[label] : label}`;
      const button = el("button", { type: "button", class: "sample", "aria-label": `Sample ${from + i}${name}` }, canvas);
      button.addEventListener("click", () => look({ sample: from + i }));
      list.append(button);
    }
  }
  const turn = (/** @type {number} */ by) => {
    from = Math.min(Math.max(0, from + by * PAGE), Math.max(0, net.samples - 1));
    fill();
  };
  const pager = source.live && net.samples > PAGE
    ? el("span", {},
        el("button", { type: "button", onclick: () => turn(-1), "aria-label": "Earlier samples" }, "\u2190"), " ",
        el("button", { type: "button", onclick: () => turn(1), "aria-label": "Later samples" }, "\u2192"))
    : null;
  place.replaceChildren(...(net.source ? [el("p", { class: "hint" }, net.source)] : []), list);
  const row = el("p", { class: "row" }, pager);
  place.append(row);
  if (source.live) row.append(files(look, notice));
  fill();
}

/**
 * @param {(what: any, arrays?: any) => Promise<void>} look
 * @param {(sentence: string) => void} notice
 */
function files(look, notice) {
  const MOST = 16 * 1024 * 1024;
  const input = el("input", { type: "file", id: "file" });
  /** @param {File | undefined | null} file */
  async function take(file) {
    if (!file) return;
    if (file.size > MOST) {
      notice(`${file.name}: has more than 16 MB; choose a smaller file.`);
      return;
    }
    const data = new Uint8Array(await file.arrayBuffer());
    await look({ name: file.name, ...whichInput() }, { file: { data, shape: [data.length] } });
  }
  input.addEventListener("change", () => {
    take(input.files?.[0]);
    input.value = "";
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer?.files[0]);
  });
  return el("label", { class: "file" }, "Open or drop a file ", input);
}

