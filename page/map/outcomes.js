// The end of the map: a bar for each of the tokens that may come next, and one for all others. A press appends the token.
//
//   const outcomes = GPT.map.outcomes();       outcomes.element is the list
//   outcomes.draw(state, frame)                frame from layout.js; returns [{ v, probability }], the place of each bar

(() => {
  "use strict";
  const { html, best, percent, spoken, visible } = GPT.draw;
  const { layout } = GPT.map;
  const SHORT = 0.35; // of the longest bar: the name stands beside a shorter one
  const WIDEST = 34; // pixels of a bar across the streams

  GPT.map.outcomes = () => {
    const element = html("ol", { class: "map-bars", "aria-label": "The most likely next tokens; press one to append it" });
    let [text, pieces] = ["", []];

    function bar(at) {
      const append = () => GPT.app.write(text + pieces[at].text);
      const parts = [html("i", {}), html("span", { class: "map-bar-label" }), html("span", { class: "map-bar-value" })];
      return html("li", {}, html("button", { type: "button", class: "map-bar", onclick: append }, parts));
    }

    /** One bar; without a piece that of all others. */
    function fill(line, piece, probability, { part, isOn, frame }) {
      const button = line.firstChild;
      const [, label, value] = button.children;
      label.textContent = piece ? visible(piece, frame.isUpright ? 7 : 10) : frame.rest;
      value.textContent = percent(probability);
      button.style.setProperty("--part", part.toFixed(4));
      button.classList.toggle("is-short", Boolean(piece) && part < SHORT);
      GPT.parts.enable(button, isOn);
      button.tabIndex = isOn ? 0 : -1;
      const name = piece ? `${isOn ? "append " : ""}${spoken(piece)}` : "all others";
      button.setAttribute("aria-label", `${name}, ${percent(probability)}`);
      line.classList.toggle("is-rest", !piece);
    }

    function draw(state, frame) {
      const probs = state.next(state.token);
      const ids = best(probs, frame.bars);
      const rest = 1 - ids.reduce((sum, id) => sum + probs[id], 0);
      const all = [...ids.map((id) => probs[id]), Math.max(0, rest)];
      [text, pieces] = [state.text, ids.map(GPT.app.piece)];
      while (element.children.length > all.length) element.lastChild.remove();
      while (element.children.length < all.length) element.append(bar(element.children.length));
      const isLast = state.token === state.tokens.length - 1;
      const longest = Math.max(...all.slice(0, -1));
      const places = layout.bars(frame, all.length);
      const gap = places[1] - places[0] - 2;
      const u = frame.fan[1];
      all.forEach((probability, i) => {
        const [line, piece] = [element.children[i], pieces[i]];
        const isOn = Boolean(piece) && isLast && !piece.isEnd && !piece.text.includes("\ufffd");
        fill(line, piece, probability, { part: Math.min(1, probability / longest), isOn, frame });
        if (frame.isUpright) layout.put(line, true, u, places[i] - gap / 2, frame.height - u, gap);
        else layout.put(line, false, u, places[i] - Math.min(gap, WIDEST) / 2, frame.width - u, Math.min(gap, WIDEST));
      });
      return all.map((probability, i) => ({ v: places[i], probability }));
    }
    return { element, draw };
  };
})();
