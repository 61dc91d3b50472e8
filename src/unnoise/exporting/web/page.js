// The page: boxes for the settings, a sheet of images, a film of the steps. MODEL and ENGINE come from their own files.
"use strict";

const GAP = 2; // pixels between images
const at = (id) => document.getElementById(id);
let film = []; // one sheet for each step, as ImageData
let stopped = false;

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

// Return the bytes of a text that is base64 of gzip.
async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Open the engine and the model; return a function that calls the network.
async function openNetwork() {
  const address = URL.createObjectURL(new Blob([await unpack(ENGINE.code)], { type: "text/javascript" }));
  const ort = await import(address);
  ort.env.wasm.wasmBinary = (await unpack(ENGINE.wasm)).buffer;
  ort.env.wasm.numThreads = 1; // more need headers that a folder of files cannot send
  const session = await ort.InferenceSession.create(await unpack(MODEL.network), { executionProviders: ["wasm"] });
  const [c, h, w] = MODEL.drawings[0].shape;
  return async (x, time, labels) => {
    const n = labels.length;
    const feed = {
      x: new ort.Tensor("float32", x, [n, c, h, w]),
      time: new ort.Tensor("float32", new Float32Array(n).fill(time), [n]),
    };
    if (MODEL.drawings[0].classes.length)
      feed.label = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [n]);
    const { output } = await session.run(feed);
    return output.data;
  };
}

// Return images [n, c, h, w] in [-1, 1] side by side as ImageData; gray and alpha become RGBA.
function sheetOf(x, n, [c, h, w]) {
  const columns = Math.ceil(Math.sqrt(n)), rows = Math.ceil(n / columns);
  const sheet = new ImageData(columns * (w + GAP) + GAP, rows * (h + GAP) + GAP);
  const pixel = (value) => Math.max(0, Math.min(255, Math.round((value + 1) * 127.5)));
  for (let i = 0; i < n; i++) {
    const left = GAP + (i % columns) * (w + GAP), top = GAP + Math.floor(i / columns) * (h + GAP);
    for (let y = 0; y < h; y++)
      for (let column = 0; column < w; column++) {
        const value = (channel) => pixel(x[((i * c + channel) * h + y) * w + column]);
        const colours = c < 3 ? [value(0), value(0), value(0)] : [value(0), value(1), value(2)];
        const alpha = c === 2 ? value(1) : c === 4 ? value(3) : 255;
        sheet.data.set([...colours, alpha], 4 * ((top + y) * sheet.width + left + column));
      }
  }
  return sheet;
}

function showSheet(sheet) {
  at("sheet").width = sheet.width;
  at("sheet").height = sheet.height;
  at("sheet").getContext("2d").putImageData(sheet, 0, 0);
}

// Return the settings in the boxes, or null if one is not allowed; the browser says which.
function settings() {
  if (!at("form").reportValidity()) return null;
  const drawing = { ...MODEL.drawings[at("steps").selectedIndex] };
  if (!at("guidanceRow").hidden) drawing.guidance = Number(at("guidance").value);
  const first = Number(at("seed").value);
  const seeds = Array.from({ length: Number(at("count").value) }, (_, i) => first + i);
  const chosen = at("label").selectedIndex - 1;
  const labels = seeds.map((seed) => (chosen < 0 ? seed % Math.max(1, drawing.classes.length) : chosen));
  return { drawing, seeds, labels };
}

async function start(network) {
  const chosen = settings();
  if (!chosen) return;
  const { drawing, seeds, labels } = chosen;
  const begun = performance.now();
  film = [];
  stopped = false;
  busy(true);
  try {
    const images = await draw(network, drawing, seeds, labels, async (x0, done) => {
      film.push(sheetOf(x0, seeds.length, drawing.shape));
      showSheet(film[film.length - 1]);
      say(`step ${done} of ${drawing.steps.length}`);
      await new Promise((resolve) => setTimeout(resolve)); // the page is painted, and Stop is heard
      return !stopped;
    });
    if (images) {
      film[film.length - 1] = sheetOf(images, seeds.length, drawing.shape);
      showSheet(film[film.length - 1]);
      at("sheet").setAttribute("aria-label", `Images of the seeds ${seeds[0]} to ${seeds[seeds.length - 1]}`);
      say(`${seeds.length} images in ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    } else say("stopped");
  } catch (error) {
    say(`The images cannot be drawn: ${error.message}`, true);
  }
  busy(false);
  at("film").max = Math.max(0, film.length - 1);
  at("film").value = at("film").max;
}

function busy(now) {
  at("start").disabled = now;
  at("stop").disabled = !now;
  at("film").disabled = at("download").disabled = now || !film.length;
}

function download() {
  at("sheet").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${MODEL.drawings[0].name}-${at("seed").value}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

function prepare() {
  const first = MODEL.drawings[0];
  const [, h, w] = first.shape;
  document.title = at("name").textContent = first.name;
  at("about").textContent = `${w} x ${h} pixels; ${MODEL.about}`;
  const option = (text) => Object.assign(document.createElement("option"), { textContent: text });
  at("label").append(...["each in turn", ...first.classes].map(option));
  at("classRow").hidden = !first.classes.length;
  at("guidance").value = first.guidance;
  at("guidanceRow").hidden = !MODEL.guidable;
  at("steps").append(...MODEL.drawings.map((drawing) => option(String(drawing.steps.length))));
  at("stepsRow").hidden = MODEL.drawings.length < 2;
}

async function main() {
  try {
    prepare();
    const network = await openNetwork();
    at("form").addEventListener("submit", (event) => {
      event.preventDefault();
      start(network);
    });
    at("stop").addEventListener("click", () => (stopped = true));
    at("dice").addEventListener("click", () => {
      at("seed").value = Math.floor(Math.random() * 1e6);
      if (!at("start").disabled) start(network);
    });
    at("film").addEventListener("input", () => showSheet(film[at("film").value]));
    at("download").addEventListener("click", download);
    busy(false);
    start(network);
  } catch (error) {
    say(`The model cannot be opened (${error.message}). Is a file of this folder missing or cut off?`, true);
  }
}

if (typeof MODEL === "undefined" || typeof ENGINE === "undefined")
  say("The model cannot be opened: model.js or engine.js is missing or damaged. Copy the whole folder.", true);
else main();
