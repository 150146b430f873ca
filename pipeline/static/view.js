// Walks through brains: asks the server for what is looked at, nothing before.
"use strict";

(async () => {
  const at = (id) => document.getElementById(id);
  const state = { cohort: 0, brain: 0, model: -1 };
  const keysOf = new Map();
  const panels = {};
  const sulci = foldnormSulci(at, () => go({}));
  let contents = null, turn = 0;

  class Refused extends Error {}
  async function ask(path) {
    const answer = await fetch(path);
    if (!answer.ok) throw new Refused((await answer.json()).error);
    return answer;
  }
  const json = async (path) => (await ask(path)).json();
  const bytes = async (path) => (await ask(path)).arrayBuffer();

  async function keys(cohort) {
    if (!keysOf.has(cohort)) keysOf.set(cohort, await json(`keys/${cohort}`));
    return keysOf.get(cohort);
  }

  // Each panel has a canvas of its own, made when it is first needed; their crosshairs move together.
  async function panel(name, palette) {
    const figure = at(name);
    shows(name, false);
    if (!panels[name]) {
      const place = figure.querySelector("[data-part=place]");
      const own = { names: [] };
      own.viewer = await foldnormVolumes.create(figure.querySelector("canvas"), palette, (data) => {
        if (place) place.textContent = foldnormVolumes.placeText(data, own.names);
      }, "GRID");
      panels[name] = own;
      sulci.watch(figure.querySelector("canvas"), own);
      const every = Object.values(panels).map((other) => other.viewer.nv);
      every.forEach((nv) => nv.broadcastTo(every.filter((other) => other !== nv), { "2d": true, "3d": true }));
    }
    panels[name].viewer.setPalette(palette);
    return panels[name];
  }

  // A figure shows a volume on its canvas, or a picture.
  function shows(name, picture) {
    at(name).hidden = false;
    at(name).querySelector("img").hidden = !picture;
    const canvas = at(name).querySelector(".canvas");
    if (canvas) canvas.hidden = picture;
  }

  async function picture(name, path, mine) {
    const url = URL.createObjectURL(await (await ask(path)).blob());
    if (mine !== turn) return;
    shows(name, true);
    const image = at(name).querySelector("img");
    URL.revokeObjectURL(image.src);
    image.src = url;
    await image.decode();
    at(name).dataset.shown = `${state.cohort}/${state.brain}/${state.model}`;
  }

  const WORDS = {
    volumes: ["lower class (missing)", "higher class (added)"],
    images: ["darker", "brighter"],
  };
  function differences(kind) {
    ["lower", "higher"].forEach((part, n) => {
      at("difference").querySelector(`[data-part=${part}]`).textContent = WORDS[kind][n];
    });
  }

  async function images(mine) {
    const { cohort, brain, model } = state;
    for (const name of ["made", "difference", "original"]) at(name).hidden = true;
    at("overlaid").hidden = at("sulci").hidden = true;
    differences("images");
    if (model < 0) {
      at("degraded").hidden = at("repair").hidden = true;
      table(at("figures"), []);
      await picture("input", `picture/${cohort}/${brain}`, mine);
      return;
    }
    at("message").textContent = "the model is at work …";
    const about = await json(`model/${cohort}/${model}`);
    if (mine !== turn) return;
    at("degraded").hidden = !about.degrades;
    const degrade = about.degrades && at("degrade").checked;
    const place = `${cohort}/${brain}/${model}/${Number(degrade)}`;
    at("made").querySelector("[data-part=makes]").textContent = title(about.makes);
    await picture("input", `given/${place}`, mine);
    await picture("made", `repaired/${place}`, mine);
    await picture("difference", `changed/${place}`, mine);
    if (degrade) await picture("original", `picture/${cohort}/${brain}`, mine);
    const figures = Object.entries(await json(`figures/${place}`));
    if (mine !== turn) return;
    at("repair").hidden = figures.length === 0;
    table(at("figures"), figures.map(([name, value]) => [name, figure(value)]));
    at("message").textContent = "";
  }

  const title = (word) => word[0].toUpperCase() + word.slice(1);

  async function draw(name, layers, palette, names) {
    const own = await panel(name, palette);
    own.names = names;
    own.viewer.show(await own.viewer.images(layers));
    at(name).dataset.shown = `${state.cohort}/${state.brain}/${state.model}`;
  }

  function table(target, rows) {
    target.replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((cell) => {
        const own = row.insertCell();
        own.textContent = cell.text ?? cell;
        if (cell.low) own.className = "low";
      });
      return row;
    }));
  }

  // A number, or its text; the server says null for one that is not finite.
  function figure(value) {
    if (value === "") return "";
    return value === null ? "n/a" : Number(value).toPrecision(3);
  }

  async function describe(mine) {
    const { facts, scores, mirrored } = await json(`brain/${state.cohort}/${state.brain}`);
    if (mine !== turn) return;
    table(at("facts"), Object.entries(facts));
    at("scores").replaceChildren(...scores.flatMap(({ name, used_for, rows, regions }) => {
      const title = document.createElement("h2"), own = document.createElement("table");
      title.textContent = `Scores: ${name}${used_for ? ` (used for ${used_for}: no p)` : ""}`;
      table(own, [["score", "value", "p"], ...rows.map(([score, value, p]) =>
        [score, figure(value), { text: figure(p), low: p !== "" && Number(p) <= 0.05 }])]);
      if (!regions.length) return [title, own];
      const heading = document.createElement("h2"), places = document.createElement("table");
      heading.textContent = "Regions that depart (orange in the input" +
        (mirrored ? ", where this right hemisphere is mirrored)" : ")");
      table(places, [["sulcus", "x, y, z mm", "mm³", "z", "p"], ...regions.map((cells) =>
        [...cells.slice(0, 4), figure(cells[4])])]);
      return [title, own, heading, places];
    }));
  }

  async function neighbours(mine) {
    at("near").hidden = true;
    at("neighbours").replaceChildren();
    if (state.model < 0) return;
    const found = await json(`neighbours/${state.cohort}/${state.brain}/${state.model}`);
    if (mine !== turn) return;
    at("near").hidden = found.length === 0;
    at("neighbours").replaceChildren(...found.map(({ brain, key, distance }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(key, Object.assign(document.createElement("span"),
        { textContent: figure(distance) }));
      button.addEventListener("click", () => go({ brain }));
      return button;
    }));
  }

  // A brain with the names of its sulci, or, where none are asked for or known, without.
  async function named(cohort, brain, naming) {
    if (naming >= 0) {
      try {
        return { kind: "sulci", content: await bytes(`named/${cohort}/${brain}/${naming}`) };
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        at("message").textContent = error.message;
        sulci.clear();
      }
    }
    return { kind: "classes", content: await bytes(`volume/${cohort}/${brain}`) };
  }

  async function volumes(mine) {
    const { cohort, brain, model } = state;
    const own = contents.cohorts[cohort];
    for (const name of ["made", "difference"]) at(name).hidden = model < 0;
    at("original").hidden = at("degraded").hidden = at("repair").hidden = true;
    table(at("figures"), []);
    differences("volumes");
    at("overlaid").hidden = model < 0;
    sulci.offer(own.sulci);
    const { kind, content } = await named(cohort, brain, sulci.chosen());
    const { peak } = await json(`brain/${cohort}/${brain}`);
    const layers = [{ kind, bytes: content }];
    if (peak) layers.push({ kind: "share", bytes: await bytes(`departure/${cohort}/${brain}`) });
    if (mine !== turn) return;
    await draw("input", layers, own.palette, own.names);
    if (kind === "sulci") sulci.show(panels.input, own.names);
    if (peak) panels.input.viewer.goTo(peak);
    if (model < 0) return;
    at("message").textContent = "the model is at work …";
    const place = `${cohort}/${brain}/${model}`;
    const about = await json(`model/${cohort}/${model}`);
    if (about.from_pair) { // it starts from the other volume of the pair
      const source = await bytes(`source/${place}`);
      if (mine !== turn) return;
      await draw("input", [{ kind: "classes", bytes: source }], about.source_palette, about.source_names);
    }
    const made = await bytes(`made/${place}`);
    if (mine !== turn) return;
    at("made").querySelector("[data-part=makes]").textContent = title(about.makes);
    await draw("made", [{ kind: "classes", bytes: made }], about.palette, about.names);
    at("difference").hidden = !about.compared;
    if (about.compared) {
      const difference = await bytes(`difference/${place}`);
      if (mine !== turn) return;
      const layers = [{ kind: "classes", bytes: made }, { kind: "difference", bytes: difference }];
      await draw("difference", layers, about.palette, about.names);
    }
    at("message").textContent = "";
  }

  async function show() {
    const mine = ++turn;
    const names = await keys(state.cohort);
    if (mine !== turn) return;
    at("where").textContent = names[state.brain];
    at("count").textContent = `${state.brain + 1} / ${names.length.toLocaleString("en")}`;
    at("phantom").hidden = !contents.cohorts[state.cohort].phantom;
    at("cohort").value = state.cohort;
    at("model").value = state.model;
    document.title = `${names[state.brain]} · foldnorm view`;
    history.replaceState(null, "", `#${state.cohort}/${state.brain}/${state.model}`);
    at("message").textContent = "";
    const say = (error) => {
      if (mine === turn) at("message").textContent = error.message;
      if (!(error instanceof Refused)) console.error(error);
    };
    await Promise.all([
      (contents.cohorts[state.cohort].images ? images : volumes)(mine).then(() => neighbours(mine)).catch(say),
      describe(mine).catch(say),
    ]);
    if (mine === turn) document.body.dataset.shown = `${state.cohort}/${state.brain}/${state.model}`;
  }

  function go(change) {
    Object.assign(state, change);
    return show();
  }
  async function step(by) {
    const { length } = await keys(state.cohort);
    return go({ brain: (state.brain + by + length) % length });
  }

  async function search() {
    const wanted = at("search").value.trim();
    if (!wanted) return;
    const names = await keys(state.cohort);
    const named = wanted.startsWith("sub-") ? wanted : `sub-${wanted}`;
    let place = names.findIndex((name) => name === named || name.startsWith(`${named}_`));
    if (place < 0) place = names.findIndex((name) => name.includes(wanted));
    if (place < 0) at("message").textContent = `no ${contents.cohorts[state.cohort].images ? "image" : "brain"} named ${wanted} in this cohort`;
    else await go({ brain: place });
  }

  async function suggest() {
    const wanted = at("search").value.trim();
    const names = wanted ? (await keys(state.cohort)).filter((name) => name.includes(wanted)) : [];
    at("found").replaceChildren(...names.slice(0, 20).map((name) =>
      Object.assign(document.createElement("option"), { value: name })));
  }

  function option(value, text) {
    return Object.assign(document.createElement("option"), { value, textContent: text });
  }

  contents = await json("contents");
  at("cohort").replaceChildren(...contents.cohorts.map(({ name, brains }, n) =>
    option(n, `${name} (${brains.toLocaleString("en")})`)));
  at("model").replaceChildren(option(-1, "none"), ...contents.models.map((name, n) => option(n, name)));
  state.model = contents.models.length ? 0 : -1;
  const [cohort, brain, model] = location.hash.slice(1).split("/").map(Number);
  if (contents.cohorts[cohort] && brain < contents.cohorts[cohort].brains && model < contents.models.length)
    Object.assign(state, { cohort, brain, model });

  at("cohort").addEventListener("change", () => go({ cohort: Number(at("cohort").value), brain: 0 }));
  at("model").addEventListener("change", () => go({ model: Number(at("model").value) }));
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("search").addEventListener("input", suggest);
  at("search").addEventListener("change", search);
  at("degrade").addEventListener("change", () => go({}));
  at("overlay").addEventListener("input", () =>
    panels.difference?.viewer.setOverlay(Number(at("overlay").value)));
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const does = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), "/": () => at("search").focus() };
    if (!does[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    does[event.key]();
  }, true);
  await show();
})().catch((error) => {
  document.getElementById("message").textContent = error.message;
  console.error(error);
});
