// Brains as points: hover shows a slice, a click the brain, a choice what colours them.
"use strict";

function foldnormPoints(figure) {
  const find = (name) => figure.querySelector(`[data-part="${name}"]`);
  const data = JSON.parse(find("data").textContent);
  const plot = find("plot"), colour = find("colour"), hover = find("hover");
  const spatial = "z" in data.columns;
  const count = data.columns.x.length;
  const every = Array.from({ length: count }, (_, n) => n);
  const ink = "#7a818c", grid = "rgba(122,129,140,.25)";
  const axis = { color: ink, gridcolor: grid, zeroline: false, showspikes: false };

  function trace(places, name, marker) {
    const of = (column) => places.map((n) => data.columns[column][n]);
    return {
      type: spatial ? "scatter3d" : count > 5000 ? "scattergl" : "scatter",
      mode: "markers", name, customdata: places, hoverinfo: "none",
      x: of("x"), y: of("y"), ...(spatial ? { z: of("z") } : {}),
      marker: {
        size: spatial ? 4 : 8, line: { width: 0 }, opacity: 0.85,
        symbol: of("role").map((role) => (role === "fitted" ? "circle" : "diamond")), ...marker,
      },
    };
  }

  // Name of what colours the points, for people.
  const title = () => colour.value.replace(/^size_mm2@(.*)$/, "$1, mm²");

  function traces() {
    const values = data.columns[colour.value];
    const known = every.filter((n) => values[n] !== null);
    const unknown = every.filter((n) => values[n] === null);
    const rest = unknown.length ? [trace(unknown, "not known", { color: "rgba(122,129,140,.4)" })] : [];
    if (known.every((n) => typeof values[n] === "number")) {
      const marker = {
        color: known.map((n) => values[n]), colorscale: "Viridis",
        colorbar: { thickness: 12, tickfont: { color: ink }, x: 1.02, title: { text: title(), side: "right" } },
      };
      return [...rest, { ...trace(known, colour.value, marker), showlegend: false }];
    }
    const names = [...new Set(known.map((n) => values[n]))].sort();
    return [...rest, ...names.map((name, n) =>
      trace(known.filter((p) => values[p] === name), String(name),
        { color: data.colours[n % data.colours.length] }))];
  }

  const named = (n) => ({ ...axis, title: { text: data.axes[n] } });
  const layout = {
    height: 460, margin: { l: 40, r: 10, t: 10, b: 36 }, showlegend: true, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
    legend: { orientation: "h" }, uirevision: "same",
    xaxis: named(0), yaxis: named(1),
    ...(spatial ? { scene: { uirevision: "same", xaxis: named(0), yaxis: named(1), zaxis: named(2) } } : {}),
  };
  const draw = () => Plotly.react(plot, traces(), layout,
    { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });

  function tile(n) {
    const [width, height, columns] = data.tile, step = 2; // pixels between slices
    const left = (n % columns) * (width + step), top = Math.floor(n / columns) * (height + step);
    const cut = document.createElement("span");
    cut.className = "tile";
    cut.style.cssText = `width:${width}px;height:${height}px;` +
      `background:url(${data.slices}) -${left}px -${top}px`;
    return cut;
  }

  function describe(target, n) {
    const value = data.columns[colour.value][n];
    const text = `${data.columns.brain[n]} · ${data.columns.cohort[n]} · ${data.columns.role[n]}` +
      (colour.value === "cohort" || colour.value === "role" ? "" : ` · ${title()} ${typeof value === "number" ? Number(value.toPrecision(4)) : value ?? "not known"}`);
    target.replaceChildren(...(data.slices ? [tile(n)] : []), document.createTextNode(text));
  }

  let viewer = null, volumes = null;
  async function open(n) {
    const opened = find("opened");
    describe(opened, n);
    figure.dataset.opened = data.columns.brain[n];
    volumes ??= JSON.parse(find("volumes").textContent); // megabytes: read when first wanted
    if (!volumes[n]) {
      const isImage = !data.palette.length; // its tile is all of it
      if (!isImage) opened.append(" (its volume is not in this page; foldnorm view opens it)");
      return;
    }
    const canvas = find("canvas");
    canvas.parentElement.hidden = false;
    viewer ??= await foldnormVolumes.create(canvas, data.palette);
    const bytes = foldnormVolumes.bytesOf(volumes[n]);
    viewer.show(await viewer.images([{ kind: "classes", bytes }]));
  }

  draw().then(() => {
    plot.on("plotly_hover", (event) => {
      const { customdata, bbox } = event.points[0];
      describe(hover, customdata);
      hover.hidden = false;
      if (bbox) {
        hover.style.left = `${bbox.x1 + 8}px`;
        hover.style.top = `${bbox.y1 + 8}px`;
      }
    });
    plot.on("plotly_unhover", () => { hover.hidden = true; });
    plot.on("plotly_click", (event) => open(event.points[0].customdata));
    figure.dataset.shown = colour.value;
  });
  colour.addEventListener("change", () => draw().then(() => { figure.dataset.shown = colour.value; }));
  find("search").addEventListener("change", (event) => {
    const wanted = event.target.value.trim();
    const named = wanted.startsWith("sub-") ? wanted : `sub-${wanted}`;
    const place = data.columns.brain.findIndex(
      (name) => name === named || name.startsWith(`${named}_`));
    if (place >= 0) open(place);
    else find("opened").textContent = `no brain named ${wanted}`;
  });
}
