// The page begins here: who answers, and which views there are.

import { byId, onFailure } from "page/dom.js";
import { connect } from "page/source.js";
import { recorded } from "page/recorded.js";
import { showPicture } from "page/picture.js";
import { showNet } from "page/net.js";
import { showLayer } from "page/layer.js";
import { showPixel } from "page/pixel.js";
import { showComparison } from "page/compare.js";
import { showTraining } from "page/training.js";
import { choose } from "page/state.js";

/** @param {string} sentence */
function notice(sentence) {
  const place = byId("notice");
  place.textContent = sentence;
  place.hidden = !sentence;
}

async function begin() {
  notice("");
  onFailure(notice);
  const kept = document.getElementById("recorded");
  const source = await (kept ? recorded(kept.textContent ?? "") : connect(notice));
  const net = /** @type {any} */ ((await source.ask({ ask: "net" })).header);
  showNet(source, net);
  showLayer(source, net);
  showPixel(source, net);
  const compare = byId("compare");
  compare.hidden = !net.other;
  if (!compare.hidden) showComparison(source, net, compare);
  const first = Math.max(0, net.nodes.findIndex((/** @type {any} */ n) => n.dense && n.shape.length > 1));
  choose({ node: first, channel: source.channel(first) });
  await showPicture(source, net, notice);
  document.addEventListener("go", (event) => {
    const node = net.nodes.findIndex((/** @type {any} */ n) => n.path === /** @type {CustomEvent} */ (event).detail);
    if (node >= 0) choose({ node });
  });
  if (net.training) await showTraining(source, net);
  document.body.dataset.ready = "yes";
}

begin();
