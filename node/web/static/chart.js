// Line charts from JSON: dose-volume histograms and histograms, drawn as SVG.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  // Okabe and Ito (2008): told apart with every kind of color vision.
  const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f"];
  const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
  const W = 720, H = 380, LEFT = 48, RIGHT = 12, TOP = 10, BOTTOM = 40;

  const make = (name, attributes, parent, text) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent?.append(node);
    return node;
  };
  const step = (span, count) => {
    const raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  };

  class Chart {
    constructor(card, curves) {
      this.card = card;
      this.curves = curves.map((curve, i) => ({ ...curve, color: COLORS[i % COLORS.length], dash: DASHES[Math.floor(i / COLORS.length) % DASHES.length], shown: true }));
      this.log = "log" in card.dataset;
      this.svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" }, card);
      make("title", {}, this.svg, `${card.dataset.y} / ${card.dataset.x}`);
      this.body = make("g", {}, this.svg);
      this.cursor = make("g", {}, this.svg);
      this.legend = document.createElement("div");
      this.legend.className = "legend";
      card.append(this.legend);
      for (const curve of this.curves) this.entry(curve);
      this.svg.addEventListener("pointermove", (event) => this.point(event));
      this.svg.addEventListener("pointerleave", () => { this.cursor.replaceChildren(); this.told(); });
      this.draw();
    }

    entry(curve) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const sign = make("svg", { viewBox: "0 0 14 14" });
      make("path", { d: "M0 7H14", stroke: curve.color, "stroke-width": 3, "stroke-dasharray": curve.dash }, sign);
      const words = document.createElement("span");
      words.textContent = curve.name;
      curve.words = words;
      button.append(sign, words);
      button.addEventListener("click", () => {
        curve.shown = !curve.shown;
        button.setAttribute("aria-pressed", String(curve.shown));
        this.draw();
      });
      this.legend.append(button);
    }

    range() {
      const shown = this.curves.filter((c) => c.shown && c.x.length);
      const lowest = Math.min(...shown.map((c) => c.x[0])), highest = Math.max(...shown.map((c) => c.x.at(-1)));
      const top = Math.max(...shown.map((c) => Math.max(...c.y)));
      return shown.length ? { lowest, highest: highest * 1.02, top: "cumulative" in this.card.dataset ? 102 : this.log ? 10 ** Math.ceil(Math.log10(top)) : top * 1.08 } : { lowest: 0, highest: 1, top: 1 };
    }

    x(value) { return LEFT + (value - this.r.lowest) / (this.r.highest - this.r.lowest) * (W - LEFT - RIGHT); }

    y(value) {
      const share = this.log ? Math.max(0, 1 + Math.log10(Math.max(value, this.r.top * 1e-4) / this.r.top) / 4) : value / this.r.top;
      return H - BOTTOM - share * (H - TOP - BOTTOM);
    }

    draw() {
      this.r = this.range();
      this.body.replaceChildren();
      const dx = step(this.r.highest - this.r.lowest, 8);
      for (let v = Math.ceil(this.r.lowest / dx) * dx; v <= this.r.highest; v += dx) {
        make("path", { d: `M${this.x(v)} ${TOP}V${H - BOTTOM}`, class: "grid" }, this.body);
        make("text", { x: this.x(v), y: H - BOTTOM + 16, "text-anchor": "middle" }, this.body, Number(v.toPrecision(6)));
      }
      const dy = step(this.r.top, 5);
      const marks = this.log ? [0, 1, 2, 3, 4].map((p) => this.r.top / 10 ** p) : Array.from({ length: Math.floor(this.r.top / dy) + 1 }, (_, i) => i * dy);
      for (const v of marks) {
        make("path", { d: `M${LEFT} ${this.y(v)}H${W - RIGHT}`, class: "grid" }, this.body);
        make("text", { x: LEFT - 6, y: this.y(v) + 4, "text-anchor": "end" }, this.body, Number(v.toPrecision(2)));
      }
      make("text", { x: (LEFT + W) / 2, y: H - 6, "text-anchor": "middle" }, this.body, this.card.dataset.x);
      make("text", { x: 12, y: H / 2, transform: `rotate(-90 12 ${H / 2})`, "text-anchor": "middle" }, this.body, this.card.dataset.y);
      for (const curve of this.curves) {
        if (!curve.shown) continue;
        let pen = "M", path = "";
        curve.x.forEach((v, i) => {  // a logarithm has no zero: the line ends there
          if (this.log && curve.y[i] <= this.r.top * 1e-4) { pen = "M"; return; }
          path += `${pen}${this.x(v).toFixed(1)} ${this.y(curve.y[i]).toFixed(1)}`;
          pen = "L";
        });
        make("path", { d: path, fill: "none", stroke: curve.color, "stroke-width": 2, "stroke-dasharray": curve.dash, "stroke-linejoin": "round" }, this.body);
      }
    }

    point(event) {
      const box = this.svg.getBoundingClientRect();
      const value = this.r.lowest + ((event.clientX - box.left) / box.width * W - LEFT) / (W - LEFT - RIGHT) * (this.r.highest - this.r.lowest);
      this.cursor.replaceChildren();
      if (value < this.r.lowest || value > this.r.highest) { this.told(); return; }
      make("path", { d: `M${this.x(value)} ${TOP}V${H - BOTTOM}`, stroke: "currentColor", "stroke-dasharray": "3 3" }, this.cursor);
      make("text", { x: this.x(value) + 5, y: TOP + 12 }, this.cursor, value.toPrecision(4));
      this.told(value);
    }

    told(value) {
      for (const curve of this.curves) {
        let words = curve.name;
        if (value !== undefined && curve.x.length) {
          let i = curve.x.findIndex((x) => x >= value);
          if (i < 0) i = curve.x.length - 1;
          words += ` ${value > curve.x.at(-1) ? 0 : curve.y[i].toPrecision(3)} %`;
        }
        curve.words.textContent = words;
      }
    }
  }

  for (const card of document.querySelectorAll("[data-chart]")) {
    fetch(card.dataset.chart).then(async (answer) => {
      const { curves } = answer.ok ? await answer.json() : { curves: [] };
      const drawn = curves.filter((curve) => curve.y.some((v) => v > 0));
      if (drawn.length) new Chart(card, drawn); else card.remove();
    }).catch(() => card.remove());
  }
})();
