// Sulci by name: their colours, a legend in which one is chosen, names under the pointer.
"use strict";

// find(id): elements names, sulci, legend, hover. draw(): called when other names are chosen.
function foldnormSulci(find, draw) {
  let offered = [], chosen = 0, alone = "", panel = null, classes = [], present = [];

  const naming = () => offered[chosen];
  const number = () => naming().names.indexOf(alone) + 1;
  const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

  function button(name) {
    const own = document.createElement("button"), swatch = document.createElement("span");
    own.type = "button";
    own.setAttribute("aria-pressed", String(name === alone));
    swatch.className = "swatch";
    swatch.style.background = css(naming().palette[naming().names.indexOf(name)]);
    own.append(swatch, name);
    if (!present.includes(name)) own.append(" (none here)");
    own.addEventListener("click", () => choose(name === alone ? "" : name));
    own.dataset.sulcus = name;
    return own;
  }

  function list() {
    const shown = naming().names.filter((name) => present.includes(name) || name === alone);
    const focused = document.activeElement?.dataset?.sulcus;
    find("legend").replaceChildren(...shown.map(button));
    if (focused) find("legend").querySelector(`[data-sulcus="${CSS.escape(focused)}"]`)?.focus();
  }

  function choose(name) {
    alone = name;
    panel.viewer.setSulci(naming().palette, number());
    list();
  }

  // Sulci of a brain that a panel shows; its volume holds their numbers above its classes.
  function show(own, names) {
    [panel, classes] = [own, names];
    const [{ img }] = panel.viewer.nv.volumes, found = new Set();
    for (const value of img) if (value >= classes.length) found.add(value - classes.length);
    present = naming().names.filter((_, n) => found.has(n));
    choose(alone);
    panel.names = [...classes, ...naming().names];
  }

  const clear = () => find("legend").replaceChildren();

  // Names that a cohort has, and which of them are shown: their number, or -1.
  function offer(all) {
    if (all === offered) return;
    [offered, chosen, alone] = [all, all.length ? 0 : -1, ""];
    const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
    find("names").replaceChildren(...all.map(({ title }, n) => option(n, title)), option(-1, "none"));
    find("names").value = chosen;
    find("sulci").hidden = all.length === 0;
  }

  find("names").addEventListener("change", () => {
    [chosen, alone] = [Number(find("names").value), ""];
    clear();
    draw();
  });
  find("sulci").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && alone) choose("");
  });

  // What lies under the pointer on a canvas whose panel has names.
  function watch(canvas, own) {
    const hover = find("hover");
    let last = null;
    const look = () => {
      const event = last;
      last = null;
      if (!event) return;
      const value = own.viewer.valueUnder(event), isPlace = value !== null && value > 0;
      hover.hidden = !isPlace || !own.names[value];
      hover.textContent = own.names[value] ?? "";
      hover.style.left = `${Math.min(event.clientX + 14, innerWidth - 180)}px`;
      hover.style.top = `${event.clientY + 14}px`;
    };
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) { hover.hidden = true; return; }
      if (!last) requestAnimationFrame(look);
      last = event;
    });
    canvas.addEventListener("pointerleave", () => { last = null; hover.hidden = true; });
  }

  return { offer, show, clear, watch, chosen: () => chosen };
}
