// Three planes of an image with contours, dose and a second image to compare with.
// Planes come as int16 HU and are windowed here; geometry (spacing, sides, matrix) comes from the
// server, nothing about places is guessed.
"use strict";

(() => {
  const card = document.getElementById("viewer");
  if (!card) return;
  const words = JSON.parse(card.dataset.words), base = card.dataset.address;
  const WINDOWS = { soft: [40, 400], lung: [-600, 1600], bone: [400, 1800], head: [40, 120], wide: [0, 2000] };
  // Upright axes (0 toward head, 1 toward back, 2 toward left) of each plane: right, down, into.
  const PLANES = [{ u: 2, v: 1 }, { u: 2, v: 0 }, { u: 1, v: 0 }];
  const KEPT = 240;

  const el = (name, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };

  class Planes {
    constructor() { this.kept = new Map(); }

    get(address, read) {
      let found = this.kept.get(address);
      if (found) this.kept.delete(address);
      else {
        found = fetch(base + address).then((answer) => {
          if (!answer.ok) throw new Error(String(answer.status));
          return read(answer);
        });
        found.catch(() => this.kept.delete(address));
      }
      this.kept.set(address, found);
      if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
      return found;
    }

    image(volume, axis, index) { return this.get(`/plane/${volume}/${axis}/${index}`, async (a) => new Int16Array(await a.arrayBuffer())); }

    dose(dose, axis, index) {
      return this.get(`/dose/${dose}/${axis}/${index}`, async (a) => ({
        width: Number(a.headers.get("x-width")), height: Number(a.headers.get("x-height")),
        stride: Number(a.headers.get("x-stride")), parts: new Uint16Array(await a.arrayBuffer()),
      }));
    }

    lines(axis, index) { return this.get(`/lines/${axis}/${index}`, async (a) => (await a.json()).lines); }
  }

  // Dose colors from cold to hot over the part of the maximum.
  const doseColor = (t) => {
    const stops = [[0, 0, 90, 200], [.25, 0, 170, 220], [.5, 60, 200, 90], [.72, 250, 220, 40], [.88, 250, 120, 20], [1, 215, 20, 30]];
    const i = Math.max(1, stops.findIndex((s) => s[0] >= t)), [a, b] = [stops[i - 1], stops[i]], k = (t - a[0]) / (b[0] - a[0]);
    return [1, 2, 3].map((c) => a[c] + k * (b[c] - a[c]));
  };

  class Viewer {
    constructor(scene) {
      this.scene = scene;
      this.planes = new Planes();
      this.index = scene.planes.map((plane) => plane.start);
      this.window = [...WINDOWS.soft];
      this.first = 0;
      this.second = scene.images.length > 1 ? 1 : null;
      this.wipe = .5;
      this.opacity = .45;
      this.floor = .1;
      this.hidden = new Set();
      this.panes = [0, 1, 2].map((axis) => new Pane(this, axis));
      this.build();
      new ResizeObserver(() => this.draw()).observe(card);
      this.draw();
    }

    build() {
      card.classList.add("ready");
      card.querySelector(".viewer-status").remove();
      const bar = el("div", { className: "bar" });
      this.preset = el("select", {}, ...Object.keys(WINDOWS).map((name) => el("option", { value: name, textContent: words[name] })), el("option", { value: "", textContent: "…" }));
      this.preset.addEventListener("change", () => { if (WINDOWS[this.preset.value]) { this.window = [...WINDOWS[this.preset.value]]; this.draw(); } });
      this.numbers = el("span");
      bar.append(el("label", {}, `${words.window} `, this.preset, this.numbers));
      if (this.second !== null) bar.append(this.compare());
      if (this.scene.doses.length) bar.append(this.doseTools());
      const who = this.scene.patient;
      const named = [who.name, who.id, who.born].filter(Boolean).join(" · ");
      const place = document.getElementById("patient");
      if (place) place.textContent = named;
      else bar.append(el("span", { className: "who", textContent: named, title: [who.study, who.series, who.manufacturer, who.model, who.position].filter(Boolean).join(" · ") }));
      const stage = el("div", { className: "stage" }, ...this.panes.map((pane) => pane.box), this.list());
      card.append(bar, stage);
      if (this.scene.notes.length) card.append(el("ul", { className: "notes" }, ...this.scene.notes.map((note) => el("li", { textContent: note }))));
      card.append(el("p", { className: "help", textContent: words.help }));
      this.enlarge(0);
    }

    compare() {
      const choose = (value, put) => {
        const select = el("select", {}, ...this.scene.images.map((image, i) => el("option", { value: i, textContent: image.label + (image.derived ? " *" : "") })));
        select.value = value;
        select.addEventListener("change", () => { put(Number(select.value)); this.draw(); });
        return select;
      };
      this.slider = el("input", { type: "range", min: 0, max: 100, value: 50, ariaLabel: words.compare });
      this.slider.addEventListener("input", () => { this.wipe = this.slider.value / 100; this.draw(); });
      return el("label", {}, `${words.compare} `, choose(0, (v) => { this.first = v; }), this.slider, choose(1, (v) => { this.second = v; }));
    }

    doseTools() {
      const ranged = (value, max, put) => {
        const input = el("input", { type: "range", min: 0, max, value });
        input.addEventListener("input", () => { put(Number(input.value) / 100); this.draw(); });
        return input;
      };
      const from = el("span"), top = this.scene.doses[0].maximum_gy;
      const told = () => { from.textContent = `${(this.floor * top).toFixed(1)}–${top.toFixed(1)} Gy`; };
      told();
      const scale = el("canvas", { className: "scale", width: 144, height: 1 });
      scale.style.position = "static";
      const pen = scale.getContext("2d");
      for (let x = 0; x < 144; x++) { pen.fillStyle = `rgb(${doseColor(x / 143).map(Math.round)})`; pen.fillRect(x, 0, 1, 1); }
      return el("label", {}, `${words.dose} `, scale, from,
        el("span", { textContent: words.opacity }), ranged(45, 100, (v) => { this.opacity = v; }),
        el("span", { textContent: words.from }), ranged(10, 95, (v) => { this.floor = v; told(); }));
    }

    list() {
      const box = el("div", { className: "list-of" });
      if (this.scene.structures.length) {
        const boxes = [];
        const put = (shown) => { for (const input of boxes) { input.checked = shown; input.dispatchEvent(new Event("change")); } };
        const button = (text, shown) => { const b = el("button", { type: "button", textContent: text }); b.addEventListener("click", () => put(shown)); return b; };
        box.append(el("div", { className: "both" }, button(words.all, true), button(words.none, false)));
        this.scene.sets.forEach((set, number) => {
          box.append(el("h3", {}, el("span", { textContent: set.label }), el("span", { className: set.derived ? "draft-tag" : "", textContent: set.derived ? words.draft : words.given })));
          this.scene.structures.forEach((structure, i) => {
            if (structure.set !== number) return;
            const input = el("input", { type: "checkbox", checked: true }), swatch = el("span", { className: "swatch" });
            swatch.style.background = structure.color;
            input.addEventListener("change", () => { if (input.checked) this.hidden.delete(i); else this.hidden.add(i); this.draw(); });
            boxes.push(input);
            box.append(el("label", {}, input, swatch, structure.name));
          });
        });
        this.toggleAll = () => put(this.hidden.size > 0);
      } else {
        box.append(el("h3", { textContent: `${words.structures}: ${words.none}` }));
        this.toggleAll = () => {};
      }
      const who = this.scene.patient;
      box.append(el("h3", { textContent: [who.series, who.manufacturer, who.model, who.position, who.study_date].filter(Boolean).join(" · ") }));
      return box;
    }

    enlarge(axis) {
      this.panes.forEach((pane, i) => { pane.box.classList.toggle("large", i === axis); pane.box.style.order = i === axis ? 0 : i + 1; });
      card.querySelector(".list-of").style.order = 9;
      this.draw();
    }

    go(axis, index) {
      const next = Math.max(0, Math.min(this.scene.planes[axis].count - 1, Math.round(index)));
      if (next === this.index[axis]) return;
      this.index[axis] = next;
      this.draw();
    }

    draw() {
      if (this.due) return;
      this.due = requestAnimationFrame(() => {
        this.due = 0;
        const known = Object.entries(WINDOWS).find(([, w]) => w[0] === this.window[0] && w[1] === this.window[1]);
        this.preset.value = known ? known[0] : "";
        this.numbers.textContent = ` L ${Math.round(this.window[0])} W ${Math.round(this.window[1])}`;
        for (const pane of this.panes) pane.draw();
      });
    }
  }

  class Pane {
    constructor(viewer, axis) {
      this.viewer = viewer;
      this.axis = axis;
      this.facts = viewer.scene.planes[axis];
      this.zoom = 1;
      this.canvas = el("canvas");
      this.caption = el("div", { className: "caption" });
      this.readout = el("div", { className: "readout" });
      this.range = el("input", { type: "range", min: 0, max: this.facts.count - 1, ariaLabel: `${words.axes[axis]}: ${words.slice}` });
      this.box = el("div", { className: "pane", tabIndex: 0, role: "group", ariaLabel: words.axes[axis] }, this.canvas, this.caption, this.readout, this.range);
      if (viewer.scene.sets.some((s) => s.derived) || viewer.scene.images.some((i) => i.derived)) this.box.append(el("div", { className: "draft", textContent: words.draft }));
      this.range.addEventListener("input", () => viewer.go(axis, Number(this.range.value)));
      this.listen();
    }

    listen() {
      const { canvas, viewer } = this;
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        if (event.ctrlKey) { this.zoom = Math.max(1, Math.min(8, this.zoom * (event.deltaY < 0 ? 1.15 : 1 / 1.15))); viewer.draw(); }
        else viewer.go(this.axis, viewer.index[this.axis] + (event.deltaY < 0 ? 1 : -1));
      }, { passive: false });
      canvas.addEventListener("contextmenu", (event) => event.preventDefault());
      canvas.addEventListener("dblclick", () => viewer.enlarge(this.axis));
      canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        this.box.focus({ preventScroll: true });
        this.drag = { x: event.clientX, y: event.clientY, window: [...viewer.window], leveling: event.button === 2 || event.shiftKey };
        if (!this.drag.leveling) this.aim(event);
      });
      canvas.addEventListener("pointermove", (event) => {
        this.read(event);
        if (!this.drag) return;
        if (this.drag.leveling) {
          const [level, width] = this.drag.window;
          viewer.window = [level - (event.clientY - this.drag.y) * 2, Math.max(1, width + (event.clientX - this.drag.x) * 3)];
          viewer.draw();
        } else this.aim(event);
      });
      canvas.addEventListener("pointerup", () => { this.drag = null; });
      canvas.addEventListener("pointerleave", () => { this.readout.textContent = ""; });
      this.box.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
        if (event.target === this.range) return;
        if (step) viewer.go(this.axis, viewer.index[this.axis] + step);
        else if (event.key === "Enter") viewer.enlarge(this.axis);
        else if (event.key === "+" || event.key === "-") { this.zoom = Math.max(1, Math.min(8, this.zoom * (event.key === "+" ? 1.25 : .8))); viewer.draw(); }
        else if (event.key === "0") { this.zoom = 1; viewer.draw(); }
        else if (event.key === "h") viewer.toggleAll();
        else if (event.key === "w") { const names = Object.keys(WINDOWS); viewer.window = [...WINDOWS[names[(names.indexOf(viewer.preset.value) + 1) % names.length]]]; viewer.draw(); }
        else if (event.key === "c" && viewer.slider) { viewer.wipe = viewer.wipe > .75 ? 0 : viewer.wipe > .25 ? 1 : .5; viewer.slider.value = viewer.wipe * 100; viewer.draw(); }
        else return;
        event.preventDefault();
      });
    }

    // Where the plane lies on the canvas, in device pixels: one scale for both directions in mm.
    layout() {
      const box = this.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
      const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
      if (this.canvas.width !== width || this.canvas.height !== height) { this.canvas.width = width; this.canvas.height = height; }
      const { width: w, height: h, spacing: [su, sv] } = this.facts;
      const scale = Math.min(width / (w * su), height / (h * sv)) * this.zoom;
      let x = (width - w * su * scale) / 2, y = (height - h * sv * scale) / 2;
      if (this.zoom > 1) {  // the crosshair stays in the middle
        const [u, v] = this.cross();
        x = width / 2 - (u + .5) * su * scale;
        y = height / 2 - (v + .5) * sv * scale;
      }
      return { width, height, ratio, box, x, y, sx: su * scale, sy: sv * scale, scale };
    }

    cross() {
      const { u, v } = PLANES[this.axis], { index } = this.viewer;
      return [index[u], this.facts.up ? this.facts.height - 1 - index[v] : index[v]];
    }

    pixel(event) {
      const l = this.layout();
      return [((event.clientX - l.box.left) * l.ratio - l.x) / l.sx - .5, ((event.clientY - l.box.top) * l.ratio - l.y) / l.sy - .5];
    }

    voxel([u, v]) {
      const plane = PLANES[this.axis], found = [...this.viewer.index];
      found[plane.u] = u;
      found[plane.v] = this.facts.up ? this.facts.height - 1 - v : v;
      return found;
    }

    aim(event) {
      const plane = PLANES[this.axis], found = this.voxel(this.pixel(event));
      this.viewer.go(plane.u, found[plane.u]);
      this.viewer.go(plane.v, found[plane.v]);
    }

    read(event) {
      const [u, v] = this.pixel(event).map(Math.round), { width, height } = this.facts;
      if (!this.shown || u < 0 || v < 0 || u >= width || v >= height) { this.readout.textContent = ""; return; }
      const [k, j, i] = this.voxel([u, v]), a = this.viewer.scene.affine;
      const mm = a.map((row) => (row[0] * k + row[1] * j + row[2] * i + row[3]).toFixed(1));
      const lines = [`L ${mm[0]}  P ${mm[1]}  S ${mm[2]} mm`, `${this.shown.hu[v * width + u]} HU`];
      if (this.shown.second) lines[1] += `  |  ${this.shown.second[v * width + u]} HU`;
      const dose = this.shown.dose;
      if (dose) {
        const part = dose.parts[Math.min(dose.height - 1, Math.round(v / dose.stride)) * dose.width + Math.min(dose.width - 1, Math.round(u / dose.stride))];
        lines.push(`${(part / 65535 * this.viewer.scene.doses[0].maximum_gy).toFixed(2)} Gy`);
      }
      this.readout.textContent = lines.join("\n");
    }

    async draw() {
      const { viewer, axis } = this, index = viewer.index[axis], { planes, scene } = viewer;
      const ticket = this.ticket = Symbol("draw");
      this.range.value = index;
      try {
        const [hu, second, dose, lines] = await Promise.all([
          planes.image(viewer.first, axis, index),
          viewer.second === null ? null : planes.image(viewer.second, axis, index),
          scene.doses.length && viewer.opacity > 0 ? planes.dose(0, axis, index) : null,
          scene.structures.length ? planes.lines(axis, index) : {},
        ]);
        if (ticket !== this.ticket) return;
        this.shown = { hu, second, dose, lines };
        this.paint();
        for (const next of [index + 1, index - 1]) {
          if (next < 0 || next >= this.facts.count || this.drag) continue;
          planes.image(viewer.first, axis, next);
          if (scene.structures.length) planes.lines(axis, next);
        }
      } catch {
        this.caption.textContent = `${words.axes[axis]}: ${words.failed}`;
      }
    }

    paint() {
      const { viewer, shown, facts } = this, l = this.layout(), pen = this.canvas.getContext("2d");
      const w = facts.width * l.sx, h = facts.height * l.sy;
      pen.fillStyle = "#000";
      pen.fillRect(0, 0, l.width, l.height);
      pen.imageSmoothingEnabled = true;
      pen.imageSmoothingQuality = "high";
      pen.drawImage(this.gray("front", shown.hu), l.x, l.y, w, h);
      if (shown.second) {
        const edge = viewer.wipe * l.width;
        pen.save();
        pen.beginPath();
        pen.rect(edge, 0, l.width, l.height);
        pen.clip();
        pen.drawImage(this.gray("back", shown.second), l.x, l.y, w, h);
        pen.restore();
        pen.fillStyle = "#4fb6cd";
        pen.fillRect(edge - l.ratio / 2, 0, l.ratio, l.height);
        this.letter(pen, l, viewer.scene.images[viewer.first].label, edge - 8 * l.ratio, 34 * l.ratio, "right");
        this.letter(pen, l, viewer.scene.images[viewer.second].label, edge + 8 * l.ratio, 34 * l.ratio, "left");
      }
      if (shown.dose && viewer.opacity > 0) {
        const { width, height, stride } = shown.dose;
        // A dose sample lies on the pixel center that it was taken at.
        const shift = (1 - stride) / 2;
        pen.drawImage(this.wash(shown.dose), l.x + shift * l.sx, l.y + shift * l.sy, width * stride * l.sx, height * stride * l.sy);
      }
      this.outlines(pen, l);
      this.marks(pen, l);
      this.caption.textContent = `${words.axes[this.axis]}  ${viewer.index[this.axis] + 1} / ${facts.count}`;
    }

    sheet(name, width, height) {
      this.sheets ??= {};
      let sheet = this.sheets[name];
      if (!sheet || sheet.width !== width || sheet.height !== height) sheet = this.sheets[name] = el("canvas", { width, height });
      return [sheet, sheet.getContext("2d")];
    }

    gray(name, hu) {
      const { width, height } = this.facts, [sheet, pen] = this.sheet(name, width, height);
      const image = pen.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
      const [level, span] = this.viewer.window, low = level - span / 2, gain = 255 / span;
      for (let i = 0; i < hu.length; i++) {
        const g = Math.max(0, Math.min(255, (hu[i] - low) * gain)) | 0;
        pixels[i] = 0xff000000 | g << 16 | g << 8 | g;
      }
      pen.putImageData(image, 0, 0);
      return sheet;
    }

    wash({ width, height, parts }) {
      const [sheet, pen] = this.sheet("dose", width, height), image = pen.createImageData(width, height);
      const { floor, opacity } = this.viewer;
      for (let i = 0; i < parts.length; i++) {
        const t = parts[i] / 65535;
        if (t < Math.max(floor, 1e-4)) continue;
        const [r, g, b] = doseColor(t);
        image.data.set([r, g, b, 255 * opacity], 4 * i);
      }
      pen.putImageData(image, 0, 0);
      return sheet;
    }

    outlines(pen, l) {
      pen.lineWidth = 1.6 * l.ratio;
      pen.lineJoin = "round";
      for (const [number, lines] of Object.entries(this.shown.lines)) {
        if (this.viewer.hidden.has(Number(number))) continue;
        pen.strokeStyle = this.viewer.scene.structures[number].color;
        pen.beginPath();
        for (const line of lines) {
          for (let i = 0; i < line.length; i += 2) {
            const x = l.x + (line[i] + .5) * l.sx, y = l.y + (line[i + 1] + .5) * l.sy;
            if (i) pen.lineTo(x, y); else pen.moveTo(x, y);
          }
          pen.closePath();
        }
        pen.stroke();
      }
    }

    marks(pen, l) {
      const [u, v] = this.cross(), x = l.x + (u + .5) * l.sx, y = l.y + (v + .5) * l.sy, gap = 14 * l.ratio;
      pen.strokeStyle = "#4fb6cd66";
      pen.lineWidth = l.ratio;
      pen.beginPath();
      for (const [a, b, c, d] of [[0, y, x - gap, y], [x + gap, y, l.width, y], [x, 0, x, y - gap], [x, y + gap, x, l.height]]) { pen.moveTo(a, b); pen.lineTo(c, d); }
      pen.stroke();
      const { facts } = this, m = 12 * l.ratio;
      this.letter(pen, l, facts.left, m, l.height / 2, "center");
      this.letter(pen, l, facts.right, l.width - m, l.height / 2, "center");
      this.letter(pen, l, facts.top, l.width / 2, m, "center");
      this.letter(pen, l, facts.bottom, l.width / 2, l.height - 34 * l.ratio, "center");
      const length = 50 * l.scale;  // 5 cm
      if (length < l.width / 2) {
        pen.strokeStyle = "#cfd9dd";
        pen.lineWidth = 2 * l.ratio;
        const left = 12 * l.ratio, low = l.height - 34 * l.ratio;
        pen.beginPath();
        pen.moveTo(left, low); pen.lineTo(left + length, low);
        pen.stroke();
        this.letter(pen, l, "5 cm", left + length + 6 * l.ratio, low, "left", 11);
      }
    }

    letter(pen, l, text, x, y, align, size = 13) {
      pen.font = `600 ${size * l.ratio}px system-ui, sans-serif`;
      pen.textAlign = align;
      pen.textBaseline = "middle";
      pen.strokeStyle = "#000b";
      pen.lineWidth = 3 * l.ratio;
      pen.strokeText(text, x, y);
      pen.fillStyle = "#e6edf0";
      pen.fillText(text, x, y);
    }
  }

  fetch(`${base}/scene`).then(async (answer) => {
    if (answer.ok) { card.viewer = new Viewer(await answer.json()); return; }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const said = page.querySelector("main p")?.textContent ?? words.failed;
    card.querySelector(".viewer-status").textContent = `${words.failed}: ${said}`;
  }).catch(() => { card.querySelector(".viewer-status").textContent = words.failed; });
})();
