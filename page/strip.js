// The tokens below the text box, and what is said of the text: that it was cut, or ends in a space.
//
//   GPT.strip.start(model, set)     set({ token }) chooses a token
//   GPT.strip.show(state)

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, visible, spoken, things } = GPT.draw;
  const HESITATION = 800; // milliseconds without a change before a hint
  const HINT = "Your text ends with a space. In this model a space belongs to the word after it, so remove it for better predictions.";
  let [model, set, hinting] = [null, null, 0];
  let shown = { ids: [], tokens: [] }; // the tokens in the strip, with their buttons

  /** The tokens below the text box; the reader chooses one of them. Those that have not changed stay. */
  function show(state) {
    const strip = document.getElementById("strip");
    const hadFocus = strip.contains(document.activeElement);
    const kept = GPT.reading.unchanged(shown.ids, state.tokens);
    const tokens = state.pieces.map((piece, index) => (index < kept ? shown.tokens[index] : tokenButton(piece, index)));
    if (GPT.characters.groups(state.pieces).length || strip.childElementCount !== shown.ids.length) {
      state.pieces.forEach((piece, index) => tokens[index].setAttribute("aria-label", `token ${index + 1}: ${spoken(piece)}`));
      strip.replaceChildren(...GPT.characters.bracket(state.pieces, tokens));
    } else {
      shown.tokens.slice(kept).forEach((button) => button.remove());
      strip.append(...tokens.slice(kept));
    }
    shown = { ids: state.tokens, tokens };
    tokens.forEach((button, index) => {
      button.tabIndex = index === state.token ? 0 : -1;
      button.setAttribute("aria-selected", String(index === state.token));
    });
    const chosen = tokens[state.token];
    if (hadFocus) chosen.focus({ preventScroll: true });
    const [from, to] = [chosen.offsetLeft - strip.offsetLeft, strip.clientWidth - chosen.offsetWidth];
    if (from < strip.scrollLeft || from > strip.scrollLeft + to) strip.scrollLeft = from - to / 2;
    hint(state.text);
    document.getElementById("cut").textContent = note(state);
  }

  /** What the model reads instead of the whole text. */
  function note({ pieces, cut }) {
    if (pieces[0].isEnd) return "Without a text, the model reads the token that stands between two texts: a new one begins.";
    if (!cut) return "";
    return `The model reads at most ${things(model.config.max_seq_len, "token")}: the first ${cut === 1 ? "one is" : `${cut} are`} left out.`;
  }

  function tokenButton(piece, index) {
    const onclick = () => set({ token: index, key: null });
    const name = `token ${index + 1}: ${spoken(piece)}`;
    return html("button", { type: "button", role: "option", class: "token", "aria-label": name, onclick }, visible(piece, 24));
  }

  /** Whether the text ends in a space that the tokens of this model would rather have before a word. */
  function endsInSpace(text) {
    const [first] = model.tokenizer.encode(" a");
    return text.endsWith(" ") && model.tokenizer.decode([first]).length > 1;
  }

  /** Says so, but not while somebody writes, who is about to begin the next word. */
  function hint(text) {
    const place = document.getElementById("space");
    clearTimeout(hinting);
    if (!endsInSpace(text)) place.textContent = "";
    else if (!place.textContent) hinting = setTimeout(() => { place.textContent = HINT; }, HESITATION);
  }

  function start(given, change) {
    [model, set] = [given, change];
    const strip = document.getElementById("strip");
    GPT.parts.roving(
      strip,
      () => Array.from(strip.querySelectorAll("button")),
      (token) => set({ token, key: null }),
    );
  }

  GPT.strip = { start, show };
})();
