"use strict";
// What the page shows without a script it shows here too; this adds the choice of a target, words read by keyboard, and
// the pictures of attention. All that comes from a text is set as textContent, never as markup.

const STRONGEST_ARCS = 10, LEAST_ARC = 0.02, LEVELS = 12, MATRIX = 400, MOST_LABELS = 30, LONGEST_LABEL = 11, NAMED = 3;

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const draw = (name, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

// The index that a key leads to in a row of `count`, or in a grid of that many `columns`; null for other keys.
function moved(event, index, count, columns, isRightToLeft) {
  const ahead = isRightToLeft ? -1 : 1;
  const steps = { ArrowRight: ahead, ArrowLeft: -ahead, ArrowDown: columns, ArrowUp: -columns, Home: -count, End: count };
  if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return null;
  event.preventDefault();
  const next = index + steps[event.key];
  if (columns > 1 && Math.abs(steps[event.key]) === columns && (next < 0 || next >= count)) return index;
  return Math.min(count - 1, Math.max(0, next));
}
const isRightToLeft = (node) => getComputedStyle(node).direction === "rtl";

function chooseTargets(entry) {
  const choice = entry.querySelector(".targets");
  if (!choice) return;
  const panels = [...entry.querySelectorAll(".panel")];
  const show = () => {
    const chosen = choice.querySelector("input:checked").value;
    for (const panel of panels) panel.hidden = panel.dataset.panel !== chosen;
  };
  choice.hidden = false;
  choice.addEventListener("change", show);
  show();
}

function readWords(panel) {
  const readout = panel.querySelector(".readout");
  if (!readout) return;
  for (const text of panel.querySelectorAll(".text")) {
    const words = [...text.querySelectorAll(".w")];
    let index = -1;
    const say = (next) => {
      for (const word of panel.querySelectorAll(".w.here")) word.classList.remove("here");
      index = next;
      if (index < 0) return;
      words[index].classList.add("here");
      readout.replaceChildren(make("bdi", {}), ` ${words[index].title}`);
      readout.firstChild.textContent = words[index].textContent;
    };
    text.tabIndex = 0;
    text.setAttribute("aria-label", `${text.getAttribute("aria-label")}: arrow keys read the score of each word`);
    text.addEventListener("keydown", (event) => {
      const next = moved(event, index, words.length, 1, isRightToLeft(text));
      if (next !== null) say(next);
    });
    text.addEventListener("pointerover", (event) => {
      const word = event.target.closest(".w");
      if (word) say(words.indexOf(word));
    });
    text.addEventListener("blur", () => say(-1));
  }
}

// Weights of a window as the page holds them: a byte each, from a head's lowest to its highest.
class Weights {
  constructor(held, size) {
    this.held = held;
    this.size = size;
    this.bytes = Uint8Array.from(atob(held.bytes), (letter) => letter.charCodeAt(0));
  }
  at(head, from, to) {
    const low = this.held.low[head], byte = this.bytes[(head * this.size + from) * this.size + to];
    return low + ((this.held.high[head] - low) * byte) / 255;
  }
  most(head) {
    return Math.max(this.held.high[head], -this.held.low[head]);
  }
  strongest(head, from, count) {
    const places = Array.from({ length: this.size }, (_, to) => ({ to, weight: this.at(head, from, to) }));
    return places.sort((one, other) => Math.abs(other.weight) - Math.abs(one.weight)).slice(0, count);
  }
}

class Attention {
  constructor(box, content, rightToLeft) {
    Object.assign(this, { box, content, rightToLeft });
    this.show(0);
    addEventListener("resize", () => this.maps.forEach((map) => this.drawArcs(map)));
  }

  show(number) {
    const held = this.content.windows[number];
    Object.assign(this, { number, tokens: held.tokens, beta: held.beta, head: held.first, token: 0 });
    const size = held.tokens.length;
    this.maps = [{ name: held.diffused ? "Plain: one hop" : "Attention", weights: new Weights(held.plain, size) }];
    if (held.diffused) {
      this.maps.push({ name: "Diffused: as the model applies it", weights: new Weights(held.diffused, size) });
    }
    this.said = make("p", { class: "said", "aria-live": "polite" });
    this.table = make("table");
    const pair = make("div", { class: "pair" }, ...this.maps.map((map) => this.makeFigure(map)));
    const hint = `Choose a head, then a token, by pointer or by arrow keys. ${
      this.maps.length > 1 ? "It begins with the head where the further hops move the most. " : ""
    }A stronger colour is more, by the square root; a dashed arc is below zero.`;
    this.box.replaceChildren(
      ...this.makeWindowChoice(), make("p", { class: "soft hint" }, hint), this.makeHeads(), pair, this.said,
      make("details", {}, make("summary", {}, "This head as a table"),
        make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Attention of the chosen head" }, this.table)),
    );
    this.pickHead(this.head);
  }

  makeWindowChoice() {
    if (this.content.windows.length < 2) return [];
    const options = this.content.windows.map((_, number) => make("option", { value: number }, `${number + 1}`));
    const select = make("select", { class: "window" }, ...options);
    select.value = this.number;
    select.addEventListener("change", () => {
      this.show(Number(select.value));
      this.box.querySelector("select").focus();
    });
    return [make("label", {}, "Window", select)];
  }

  makeHeads() {
    const { layers, heads } = this.content;
    const numbers = Array.from({ length: heads }, (_, head) => make("th", {}, `${head + 1}`));
    const rows = [make("tr", {}, make("th", {}, "head"), ...numbers)];
    this.buttons = [];
    for (let layer = 0; layer < layers; layer++) {
      const cells = Array.from({ length: heads }, (_, head) => make("td", {}, this.makeHeadButton(layer * heads + head)));
      rows.push(make("tr", {}, make("th", { scope: "row" }, `layer ${layer + 1}`), ...cells));
    }
    const group = make("div", { class: "heads-box", role: "radiogroup", "aria-label": "Head" },
      make("table", { class: "heads", role: "presentation" }, ...rows));
    group.addEventListener("keydown", (event) => {
      const next = moved(event, this.head, this.buttons.length, heads, false);
      if (next === null) return;
      this.pickHead(next);
      this.buttons[next].focus();
    });
    return group;
  }

  makeHeadButton(head) {
    const label = `${this.headName(head)}${this.beta[head].map((beta) => `, beta ${beta.toFixed(3)}`).join("")}`;
    const size = this.tokens.length, canvas = make("canvas", { width: size, height: size });
    const weights = this.maps[this.maps.length - 1].weights, most = weights.most(head);
    const image = new ImageData(size, size);
    for (let place = 0; place < size * size; place++) {
      const weight = weights.at(head, Math.floor(place / size), place % size);
      image.data.set([...(weight < 0 ? [222, 112, 20] : [60, 140, 215]), 255 * Math.sqrt(Math.abs(weight) / most)], 4 * place);
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    const button = make("button", { type: "button", role: "radio", "aria-label": label, title: label, tabindex: -1 }, canvas);
    button.addEventListener("click", () => this.pickHead(head));
    this.buttons.push(button);
    return button;
  }

  makeFigure(map) {
    map.matrix = draw("svg", { class: "matrix", viewBox: `0 0 ${MATRIX} ${MATRIX}`, "aria-hidden": "true" });
    map.arcs = draw("svg", { "aria-hidden": "true" });
    map.chips = this.tokens.map((token) =>
      make("span", { class: "token", role: "option", tabindex: -1, dir: "auto" }, token, make("b")));
    map.flow = make("div", { class: "flow", role: "listbox", dir: this.rightToLeft ? "rtl" : "ltr",
      "aria-label": `Tokens, ${map.name}` }, map.arcs, ...map.chips.flatMap((chip) => [chip, " "]));
    map.matrix.addEventListener("pointermove", (event) => this.point(map, event));
    map.chips.forEach((chip, token) => {
      chip.addEventListener("pointerenter", () => this.pickToken(token));
      chip.addEventListener("focus", () => this.pickToken(token));
    });
    map.flow.addEventListener("keydown", (event) => {
      const next = moved(event, this.token, this.tokens.length, 1, this.rightToLeft);
      if (next !== null) map.chips[next].focus();
    });
    return make("figure", {}, make("figcaption", {}, map.name), map.matrix, map.flow);
  }

  headName(head) {
    return `layer ${Math.floor(head / this.content.heads) + 1}, head ${(head % this.content.heads) + 1}`;
  }

  pickHead(head) {
    this.head = head;
    this.buttons.forEach((button, index) => {
      button.setAttribute("aria-checked", index === head);
      button.tabIndex = index === head ? 0 : -1;
    });
    const box = this.buttons[head].closest(".heads-box");
    box.scrollLeft = this.buttons[head].offsetLeft - box.clientWidth / 2;
    this.most = Math.max(...this.maps.map((map) => map.weights.most(head)));
    for (const map of this.maps) this.drawMatrix(map);
    this.fillTable();
    this.pickToken(this.token);
  }

  pickToken(token) {
    this.token = token;
    for (const map of this.maps) {
      map.chips.forEach((chip, index) => {
        chip.setAttribute("aria-selected", index === token);
        chip.tabIndex = index === token ? 0 : -1;
        const share = Math.max(0, map.weights.at(this.head, token, index)) / this.most;
        chip.lastChild.style.width = `${100 * share}%`;
      });
      this.drawArcs(map);
      map.marker.setAttribute("y", map.margin + token * map.cell);
      map.labels.forEach((label, index) => label.classList.toggle("on", index === token));
    }
    const parts = this.maps.map((map) => `${map.name.split(":")[0].toLowerCase()} ${this.named(map, token).join(", ")}`);
    this.say(`${this.headName(this.head)}: “${this.tokens[token]}” attends to ${parts.join("; ")}.`);
  }

  say(sentence) {
    this.said.textContent = sentence[0].toUpperCase() + sentence.slice(1);
  }

  named(map, token) {
    // Isolated, or a name in Hebrew would turn the number behind it.
    return map.weights.strongest(this.head, token, NAMED).map(({ to, weight }) => `“\u2068${this.tokens[to]}\u2069” ${weight.toFixed(2)}`);
  }

  point(map, event) {
    const place = map.matrix.getBoundingClientRect(), scale = MATRIX / place.width;
    const [column, row] = [event.clientX - place.left, event.clientY - place.top].map((pixels) =>
      Math.floor((pixels * scale - map.margin) / map.cell));
    const size = this.tokens.length;
    if (row < 0 || row >= size) return;
    if (row !== this.token) this.pickToken(row);
    if (column < 0 || column >= size) return;
    const weights = this.maps.map((each) => `${each.name.split(":")[0].toLowerCase()} ${each.weights.at(this.head, row, column).toFixed(3)}`);
    this.say(`${this.headName(this.head)}: from “${this.tokens[row]}” to “${this.tokens[column]}”, ${weights.join(", ")}.`);
  }

  drawMatrix(map) {
    const size = this.tokens.length, isLabelled = size <= MOST_LABELS;
    const letters = Math.min(LONGEST_LABEL, Math.max(...this.tokens.map((token) => [...token].length)));
    map.margin = isLabelled ? 14 + 6.4 * letters : 0;
    map.cell = (MATRIX - map.margin) / size;
    const paths = {};
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const weight = map.weights.at(this.head, row, column);
        const level = Math.round(LEVELS * Math.sqrt(Math.abs(weight) / this.most));
        const name = `${weight < 0 ? "negative" : "positive"} ${level}`;
        const [x, y, side] = [map.margin + column * map.cell, map.margin + row * map.cell, map.cell].map((part) => part.toFixed(2));
        if (level) paths[name] = `${paths[name] ?? ""}M${x} ${y}h${side}v${side}h-${side}z`;
      }
    }
    const cells = Object.entries(paths).map(([name, path]) =>
      draw("path", { class: name.split(" ")[0], "fill-opacity": (name.split(" ")[1] / LEVELS).toFixed(2), d: path }));
    map.marker = draw("rect", { class: "row", x: map.margin, width: MATRIX - map.margin, height: map.cell });
    map.labels = isLabelled ? this.tokens.map((token, index) => this.makeLabel(map, token, index, false)) : [];
    const columns = isLabelled ? this.tokens.map((token, index) => this.makeLabel(map, token, index, true)) : [];
    const paper = draw("rect", { class: "paper", x: map.margin, y: map.margin, width: MATRIX - map.margin, height: MATRIX - map.margin });
    map.matrix.replaceChildren(paper, ...cells, ...map.labels, ...columns, map.marker);
  }

  makeLabel(map, token, index, isColumn) {
    const whole = [...token], size = Math.min(12, map.cell * 0.85), middle = map.margin + (index + 0.5) * map.cell;
    const place = isColumn
      ? { transform: `translate(${middle + size * 0.35} ${map.margin - 5}) rotate(-90)` }
      : { x: map.margin - 5, y: middle + size * 0.35, "text-anchor": "end" };
    const label = draw("text", { "font-size": size, ...place });
    label.textContent = whole.length > LONGEST_LABEL ? `${whole.slice(0, LONGEST_LABEL - 1).join("")}…` : token;
    return label;
  }

  drawArcs(map) {
    const from = map.chips[this.token], strongest = map.weights.strongest(this.head, this.token, STRONGEST_ARCS);
    const arcs = strongest.filter(({ weight }) => Math.abs(weight) >= LEAST_ARC).map(({ to, weight }) =>
      draw("path", { d: arc(from, map.chips[to]), class: weight < 0 ? "negative" : "positive",
        "stroke-width": (1 + 5 * Math.abs(weight)).toFixed(2), opacity: (0.35 + 0.65 * Math.min(1, Math.abs(weight))).toFixed(2) }));
    map.arcs.replaceChildren(...arcs);
  }

  fillTable() {
    const heads = ["token", ...this.maps.map((map) => map.name.split(":")[0].toLowerCase())];
    const rows = this.tokens.map((token, index) => make("tr", {}, make("th", { scope: "row", dir: "auto" }, token),
      ...this.maps.map((map) => make("td", { class: "words" }, this.named(map, index).join(", ")))));
    this.table.replaceChildren(
      make("caption", {}, `${this.headName(this.head)}: the ${NAMED} tokens that each token attends to most`),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows));
  }
}

// From the top of one token to the top of another, in a line above them where they stand in the same one.
function arc(from, to) {
  const [x, y] = [from.offsetLeft + from.offsetWidth / 2, from.offsetTop];
  const [toX, toY] = [to.offsetLeft + to.offsetWidth / 2, to.offsetTop];
  if (from === to) return `M${x - 5} ${y}C${x - 12} ${y - 18} ${x + 12} ${y - 18} ${x + 5} ${y}`;
  if (Math.abs(y - toY) > 4) return `M${x} ${y}C${x} ${y - 26} ${toX} ${toY - 40} ${toX} ${toY}`;
  const rise = Math.min(40, 12 + Math.abs(toX - x) * 0.16);
  return `M${x} ${y}C${x} ${y - rise} ${toX} ${toY - rise} ${toX} ${toY}`;
}

const data = JSON.parse(document.getElementById("data").textContent);
for (const entry of document.querySelectorAll(".entry")) {
  chooseTargets(entry);
  entry.querySelectorAll(".panel").forEach(readWords);
  const content = data[entry.dataset.entry];
  if (content) new Attention(entry.querySelector(".drawn"), content, isRightToLeft(entry.querySelector(".text")));
}
