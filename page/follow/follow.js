// Follow one number: the tour. One stop after the other, played or stepped, for the reader's own text and number.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const SWIPE = 45; // pixels
  const PER_WORD = 0.27; // seconds for reading

  const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  const tour = {
    mount(element, model) {
      Object.assign(this, {
        model,
        element,
        at: 0,
        time: 0,
        isPlaying: false,
        isMoving: false,
        c: null,
        state: null,
        width: 0,
      });
      this.stops = GPT.follow.stops.filter(({ applies }) => !applies || applies(model));
      this.build();
      this.listen();
    },

    build() {
      const button = (words, onclick, kind = "") =>
        html("button", { type: "button", class: `action ${kind}`, onclick }, words);
      this.map = GPT.follow.map(this.model);
      this.title = html("h4", { class: "follow-title" });
      this.words = html("p", { class: "follow-words" });
      this.formula = html("p", { class: "follow-formula" });
      this.stage = html("div", { class: "follow-stage" });
      this.live = html("p", { class: "visually-hidden", "aria-live": "polite" });
      this.back = button("← Back", () => this.step(-1));
      this.play = button("▶ Play", () => this.toggle(), "is-play");
      this.next = button("Next →", () => this.step(1));
      this.line = this.stops.map((stop, i) =>
        html(
          "button",
          { type: "button", class: "follow-stop", onclick: () => this.go(i) },
          html("span", {}, stop.name),
          html("b", {}),
        ),
      );
      this.field = html("input", {
        type: "number",
        min: 1,
        max: this.model.config.d_model,
        oninput: ({ target }) => this.choose(target.value - 1),
        onblur: ({ target }) => (target.value = this.c + 1), // a number that was not valid
      });
      this.body = html(
        "div",
        {
          class: "follow",
          role: "group",
          tabindex: 0,
          "aria-label": "Follow one number: left and right arrow keys step, space plays and pauses",
        },
        html(
          "div",
          { class: "follow-top" },
          html("div", { class: "follow-buttons" }, this.back, this.play, this.next),
          html("label", { class: "follow-choice" }, "Number ", this.field, ` of ${this.model.config.d_model}`),
        ),
        html(
          "ol",
          { class: "follow-line-of-stops", "aria-label": "Stops" },
          this.line.map((stop) => html("li", {}, stop)),
        ),
        html("div", { class: "follow-head" }, html("div", {}, this.title, this.words), this.map.element),
        this.formula,
        this.stage,
        this.live,
      );
      this.element.append(this.body);
    },

    listen() {
      this.body.addEventListener("keydown", (event) => {
        if (event.target === this.field || event.altKey || event.ctrlKey || event.metaKey) return;
        const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (by) this.step(by);
        else if (event.key === " " && event.target === this.body) this.toggle();
        else return;
        event.preventDefault();
        if (this.line.includes(document.activeElement)) this.line[this.at].focus();
      });
      let down = null;
      this.stage.addEventListener("pointerdown", (event) => {
        down = event.pointerType === "mouse" ? null : event;
      });
      this.stage.addEventListener("pointerup", (event) => {
        if (!down) return;
        const [dx, dy] = [event.clientX - down.clientX, event.clientY - down.clientY];
        if (Math.abs(dx) > SWIPE && Math.abs(dx) > 2 * Math.abs(dy)) this.step(dx < 0 ? 1 : -1);
        down = null;
      });
      this.stage.addEventListener("click", ({ target }) => {
        const cell = target.closest("[data-column]");
        if (cell) this.choose(Number(cell.dataset.column));
      });
      new ResizeObserver(() => this.state && this.stage.clientWidth !== this.width && this.redraw()).observe(
        this.stage,
      );
      new IntersectionObserver(() => {
        const { top, bottom } = this.body.getBoundingClientRect(); // the entry may be older than a jump to the tour
        if (bottom < 0 || top > innerHeight) this.pause();
      }).observe(this.body);
      matchMedia("(prefers-reduced-motion: reduce)").addEventListener("change", () => this.state && this.show());
      addEventListener("beforeprint", () => {
        this.pause();
        this.finish();
      });
    },

    update(state) {
      this.state = state;
      this.c ??= GPT.follow.usual(this.model, state);
      this.redraw();
    },

    /** Follows number c, counted from 0. */
    choose(c) {
      if (!Number.isInteger(c) || c < 0 || c >= this.model.config.d_model || !this.state) return;
      this.c = c;
      this.redraw();
      this.speak();
    },

    /** Computes the story again, and draws the current stop at the time that it has reached. */
    redraw() {
      this.story = GPT.follow.story(this.model, this.state, this.c);
      if (Number(this.field.value) !== this.c + 1) this.field.value = this.c + 1;
      this.line.forEach((stop, i) => {
        stop.lastChild.textContent = this.stops[i].value(this.story);
      });
      if (this.stage.clientWidth !== this.width) this.measure();
      const isEnd = !this.scene || this.time >= this.scene.length;
      this.show();
      if (isEnd) this.time = this.scene.length;
      this.scene.seek(this.time);
    },

    /** The stage is as high as the highest stop, so that stepping moves nothing on the page. */
    measure() {
      this.width = this.stage.clientWidth;
      const heights = this.stops.map((_, i) => this.draw(i).height);
      this.stage.style.minHeight = `${Math.max(...heights) + 2}px`;
    },

    draw(i) {
      const scene = new GPT.follow.Scene(Math.max(280, this.width));
      this.stops[i].draw(scene, this.story);
      return scene.finish();
    },

    /** Shows the current stop: title, words, picture as it ends, formula. */
    show() {
      const stop = this.stops[this.at];
      this.scene = this.draw(this.at);
      const title = typeof stop.title === "function" ? stop.title(this.story) : stop.title;
      this.title.replaceChildren(`${this.at + 1}. ${title}`);
      const flat = (parts) => parts.flat(Infinity).filter((part) => part !== null && part !== false && part !== "");
      this.words.replaceChildren(...flat(stop.words(this.story)));
      this.formula.replaceChildren(...flat(stop.formula(this.story)));
      this.stage.replaceChildren(this.scene.svg);
      this.stage.style.minHeight = `${Math.max(parseFloat(this.stage.style.minHeight) || 0, this.scene.height + 2)}px`;
      this.map.show(stop.place);
      this.line.forEach((button, i) => {
        button.tabIndex = i === this.at ? 0 : -1;
        if (i === this.at) button.setAttribute("aria-current", "step");
        else button.removeAttribute("aria-current");
        button.classList.toggle("is-past", i < this.at);
      });
      const list = this.line[0].parentElement.parentElement;
      const current = this.line[this.at].parentElement;
      list.scrollLeft = current.offsetLeft - list.offsetLeft - list.clientWidth / 2 + current.offsetWidth / 2;
      GPT.parts.enable(this.back, this.at > 0);
      GPT.parts.enable(this.next, this.at < this.stops.length - 1);
      this.play.hidden = isStill();
      this.play.textContent = this.isPlaying ? "❚❚ Pause" : "▶ Play";
    },

    speak() {
      this.live.textContent = `Stop ${this.at + 1} of ${this.stops.length}. ${this.title.textContent.replace(/^\d+\. /, "")}. ${this.words.textContent}`;
    },

    /** Shows stop i, and its movement from the beginning. */
    go(i) {
      this.at = Math.max(0, Math.min(this.stops.length - 1, i));
      this.show();
      this.speak();
      if (isStill()) return this.finish();
      this.time = 0;
      this.scene.seek(0);
      this.move();
    },

    step(by) {
      const to = this.at + by;
      if (to < 0 || to >= this.stops.length) return;
      this.isPlaying = false;
      this.go(to);
    },

    toggle() {
      if (this.isPlaying) return this.pause();
      if (isStill()) return;
      this.isPlaying = true;
      const isOver = this.time >= this.scene.length;
      if (isOver && this.at === this.stops.length - 1) this.go(0);
      else if (isOver) this.go(this.at === 0 && !this.hasPlayed ? 0 : this.at + 1);
      else this.move();
      this.hasPlayed = true;
      this.play.textContent = "❚❚ Pause";
    },

    pause() {
      this.isPlaying = false;
      this.isMoving = false;
      this.play.textContent = "▶ Play";
    },

    /** Puts everything where the movement ends. */
    finish() {
      this.isMoving = false;
      if (!this.scene) return;
      this.time = this.scene.length;
      this.scene.seek(this.time);
    },

    /** Moves until the stop ends; when playing, the next stop follows after time to read. */
    move() {
      if (this.isMoving) return;
      this.isMoving = true;
      let before = null;
      const frame = (now) => {
        if (!this.isMoving) return;
        this.time += before === null ? 0 : Math.min(0.1, (now - before) / 1000);
        before = now;
        this.scene.seek(this.time);
        if (this.time >= this.scene.length + (this.isPlaying ? this.rest() : 0)) {
          this.isMoving = false;
          if (!this.isPlaying) return;
          if (this.at < this.stops.length - 1) return this.go(this.at + 1);
          return this.pause();
        }
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    },

    /** Seconds to wait after the movement: what reading takes longer than the movement, at least one and a half. */
    rest() {
      const words = this.words.textContent.split(/\s+/).length;
      return Math.max(1.5, words * PER_WORD - this.scene.length);
    },

    /** Brings the tour into view and plays it from the first stop; with reduced motion, shows its first stop. */
    open() {
      this.body.scrollIntoView({ behavior: "instant" });
      requestAnimationFrame(() => this.body.scrollIntoView({ behavior: "instant" })); // diagrams above it may have grown
      this.body.focus({ preventScroll: true });
      if (!this.state) this.update(GPT.app.state);
      this.isPlaying = !isStill();
      this.hasPlayed = true;
      this.go(0);
    },
  };

  GPT.diagram("follow", tour);
  GPT.follow.open = () => tour.open();
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-follow]") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    history.replaceState(null, "", "#follow");
    tour.open();
  });
})();
