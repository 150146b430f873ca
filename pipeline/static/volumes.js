// Label volumes in NiiVue: slices with a crosshair, a rotating surface, overlays.
"use strict";

const foldnormVolumes = (() => {
  const inkOf = () => (matchMedia("(prefers-color-scheme: dark)").matches ? 0.85 : 0.3);

  // A colour a number: NiiVue has 256 of them, and gives the first two to what is no number. In 3-D,
  // sulci are opaque, and all folds a haze beside one that is shown alone: no ray may stop in it.
  const FIRST = 2;
  function sulciColormap(palette, sulci = [], alone = 0) {
    const map = { R: [], G: [], B: [], A: [], I: [] };
    const haze = [190, 194, 200], classes = palette.length;
    for (let n = 0; n < 256; n++) {
      const value = Math.max(n - FIRST, 0);
      const number = value - classes + 1; // of a sulcus, from 1
      const isNamed = number > 0 && number <= sulci.length;
      const isShown = isNamed && (!alone || alone === number);
      const isFold = value >= classes - 1;
      const [r, g, b] = isShown ? sulci[number - 1] : isFold ? haze : palette[value];
      map.R.push(r); map.G.push(g); map.B.push(b); map.I.push(n);
      map.A.push(isShown ? 255 : isFold ? (alone ? 14 : 0) : 0);
    }
    return map;
  }

  function addColormaps(nv, palette) {
    // Only the highest class is opaque in 3-D; in slices the lowest layer is opaque all over.
    const last = palette.length - 1;
    const places = palette.map((_, n) => Math.round((255 * n) / Math.max(last, 1)));
    const channel = (c) => palette.map((colour) => colour[c]);
    nv.addColormap("classes", {
      R: channel(0), G: channel(1), B: channel(2),
      A: palette.map((_, n) => (n === last ? 255 : 0)), I: places,
    });
    nv.addColormap("sulci", sulciColormap(palette));
    nv.addColormap("share", {
      R: [240, 230, 178], G: [170, 120, 24], B: [60, 30, 43], A: [0, 70, 255], I: [0, 128, 255],
    });
    nv.addColormap("difference", {
      R: [255, 222, 36], G: [255, 119, 148], B: [255, 36, 116], A: [0, 255, 255], I: [0, 128, 255],
    });
  }

  // Values that the ends of each colormap stand for.
  const rangeOf = (kind, palette) =>
    ({ classes: [0, palette.length - 1], sulci: [-FIRST - 0.5, 255.5 - FIRST], difference: [0, 2], share: [25, 255] })[kind];

  // Place, as shares of the volume, where a ray from the pointer meets a surface; null if it meets none.
  // NiiVue draws such places as colours when its own crosshair is to go there, which stays here.
  function picked(nv, [x, y]) {
    const colour = new Uint8Array(4), { gl } = nv;
    nv.depthPicker = () => {
      nv.uiData.mouseDepthPicker = false;
      gl.readPixels(x, gl.canvas.height - y - 1, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, colour);
    };
    nv.uiData.mouseDepthPicker = true;
    nv.drawScene();
    nv.uiData.mouseDepthPicker = false;
    delete nv.depthPicker;
    const opaque = nv.VOLUME_ID - 4; // blended once, and rounded
    return colour[3] < opaque ? null : Array.from(colour.slice(0, 3), (v) => Math.min(v / nv.VOLUME_ID, 1));
  }

  // Value of the lowest layer under the pointer; on a surface the highest one around where the ray
  // meets it, as it may stop just before. null: nothing is there.
  function valueUnder(nv, event) {
    const place = [event.offsetX * nv.uiData.dpr, event.offsetY * nv.uiData.dpr];
    const isSurface = nv.inRenderTile(...place) >= 0;
    const share = isSurface ? picked(nv, place) : nv.canvasPos2frac(place);
    const [volume] = nv.volumes;
    if (!volume || !share || share[0] < 0) return null;
    const voxel = volume.mm2vox(Array.from(nv.frac2mm(share)));
    const reach = isSurface ? [-1, 0, 1] : [0];
    const values = reach.flatMap((i) => reach.flatMap((j) => reach.map((k) =>
      volume.getValue(voxel[0] + i, voxel[1] + j, voxel[2] + k))));
    return Math.max(...values.filter(Number.isFinite));
  }

  // One canvas. show(layers) takes [{kind, bytes}], bytes an ArrayBuffer of a NIfTI file.
  async function create(canvas, palette, onPlace, layout = "ROW") {
    const ink = inkOf();
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 0], crosshairColor: [0.85, 0.35, 0.1, 0.8], crosshairWidth: 0.4,
      show3Dcrosshair: true, loadingText: "", dragAndDropEnabled: false, logLevel: "silent",
      fontColor: [ink, ink, ink, 1], isResizeCanvas: true, isNearestInterpolation: true,
    });
    await nv.attachToCanvas(canvas);
    addColormaps(nv, palette);
    nv.opts.multiplanarShowRender = niivue.SHOW_RENDER.ALWAYS;
    nv.setMultiplanarLayout(niivue.MULTIPLANAR_TYPE[layout]);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    nv.setRenderAzimuthElevation(250, 15);
    if (onPlace) nv.onLocationChange = onPlace;
    let overlay = 0.7;

    // Two volumes may have other classes: their colours are set with them.
    const setPalette = (other) => { palette = other; addColormaps(nv, palette); };

    async function image({ kind, bytes }, first) {
      const [low, high] = rangeOf(kind, palette);
      const made = await niivue.NVImage.loadFromUrl({
        url: bytes, name: "volume.nii.gz", colormap: kind, cal_min: low, cal_max: high,
        opacity: first ? 1 : overlay,
      });
      made.cal_min = low;
      made.cal_max = high;
      // A share below a tenth of the largest is not drawn: a haze would hide what lies under it.
      if (kind === "share") made.colormapType = 1; // colours from 0, transparent below cal_min
      made.hdr.intent_code = 0; // NiiVue draws labels with colours of its own
      return made;
    }

    return {
      nv,
      setPalette,
      async images(layers) {
        return Promise.all(layers.map((layer, n) => image(layer, n === 0)));
      },
      show(images) {
        images.slice(1).forEach((own) => { own.opacity = overlay; });
        nv.volumes = [];
        images.forEach((own) => nv.addVolume(own));
      },
      // Colours of sulci, and the number of one that is shown alone, or 0.
      setSulci(colours, alone) {
        nv.addColormap("sulci", sulciColormap(palette, colours, alone));
        if (nv.volumes.length) nv.updateGLVolume();
      },
      valueUnder: (event) => valueUnder(nv, event),
      goTo(voxel) {
        nv.scene.crosshairPos = nv.vox2frac(voxel);
        nv.drawScene();
      },
      setOverlay(share) {
        overlay = share;
        nv.volumes.slice(1).forEach((_, n) => nv.setOpacity(n + 1, share));
      },
    };
  }

  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

  function placeText(data, names) {
    const mm = Array.from(data.mm).slice(0, 3).map((v) => v.toFixed(1)).join(", ");
    const value = data.values.length ? data.values[0].value : NaN;
    return `${mm} mm: ${names[Math.round(value)] ?? value}`;
  }

  // A figure of the report. Its JSON: {palette, names, radiological, groups: [{name, at, steps}]}, at the
  // voxel to look at first, a step {name, layers}, a layer {kind, data: base64 of a .nii.gz}.
  async function start(figure) {
    const { palette, names, groups, radiological } = JSON.parse(figure.querySelector("script").textContent);
    const find = (name) => figure.querySelector(`[data-part="${name}"]`);
    const [group, step, play, overlay] = ["group", "step", "play", "overlay"].map(find);
    const viewer = await create(find("canvas"), palette, (data) => {
      find("place").textContent = placeText(data, names);
    });
    viewer.nv.opts.isRadiologicalConvention = Boolean(radiological);
    viewer.nv.opts.sagittalNoseLeft = Boolean(radiological);
    const made = new Map();
    let asked = 0, gone = null;

    async function draw() {
      const { steps, at } = groups[group ? group.value : 0];
      if (step) step.max = steps.length - 1;
      const chosen = steps[step ? Number(step.value) : 0];
      const own = ++asked;
      if (!made.has(chosen)) {
        const layers = chosen.layers.map(({ kind, data }) => ({ kind, bytes: bytesOf(data) }));
        made.set(chosen, await viewer.images(layers));
      }
      if (own !== asked) return; // a later choice came first
      viewer.show(made.get(chosen));
      if (at && at !== gone) viewer.goTo(at);
      gone = at;
      find("name").textContent = chosen.name;
      figure.dataset.shown = chosen.name;
    }

    let timer = null;
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    }
    if (group) group.addEventListener("change", () => { if (step) step.value = 0; draw(); });
    if (step) step.addEventListener("input", draw);
    if (play) {
      play.addEventListener("click", () => {
        if (timer) return stop();
        play.textContent = "Stop";
        timer = setInterval(() => {
          step.value = (Number(step.value) + 1) % (Number(step.max) + 1);
          draw();
        }, 500);
      });
    }
    if (overlay) overlay.addEventListener("input", () => viewer.setOverlay(Number(overlay.value)));
    await draw();
  }

  // A browser keeps few graphics contexts: each figure gets its own when it is first seen.
  function startWhenSeen() {
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        start(target).catch((error) => {
          target.querySelector("[data-part=name]").textContent =
            `No 3-D here (${error.message}); the pictures show the same.`;
        });
      }
    });
    document.querySelectorAll("figure.volumes").forEach((figure) => seen.observe(figure));
  }

  return { create, bytesOf, placeText, startWhenSeen };
})();
