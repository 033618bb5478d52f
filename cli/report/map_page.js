// The map of images in a browser: pan by dragging, zoom by the wheel, pictures or dots, one under the pointer, classes to hide.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const canvas = document.querySelector("canvas");
const tip = document.getElementById("tip");
const sprite = new Image();
sprite.src = document.getElementById("sprite").src;
const hidden = new Set();
let layout = data.layouts[0];
let view = { x: 0, y: 0, scale: 1 };
let hovered = -1;
let pictures = data.names.length <= 1500;

// Far apart from each other on light and dark pages; more classes than these go around the colour wheel.
const COLOURS = "e6194b 3cb44b f5b800 4363d8 f58231 911eb4 2ab7ca f032e6 86a80f 9a6324 7f8c8d e88ba5".split(" ");
const colour = (label) => {
  if (label < 0) return "#8ab";
  return data.classNames && data.classNames.length <= COLOURS.length
    ? `#${COLOURS[label]}`
    : `hsl(${(label * 137.508) % 360} 70% ${label % 2 ? 55 : 45}%)`;
};

/** Half the width and height of a layout, its middle being 0. */
const extents = new Map(data.layouts.map(({ points }) => {
  const extent = [0, 0];
  points.forEach((v, i) => extent[i % 2] = Math.max(extent[i % 2], Math.abs(v)));
  return [points, extent];
}));

/** Pixels of the window for a unit of the layout: it fills the window one way. */
function unit() {
  const [x, y] = extents.get(layout.points);
  return 0.47 * Math.min(canvas.clientWidth / x, canvas.clientHeight / y) * view.scale;
}

function place(i) {
  const side = unit();
  return [
    canvas.clientWidth / 2 + view.x + layout.points[2 * i] * side,
    canvas.clientHeight / 2 + view.y - layout.points[2 * i + 1] * side,
  ];
}

function draw() {
  const ratio = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  if (pictures) return drawPictures(context);
  const radius = Math.max(2, Math.min(6, 60 / Math.sqrt(data.names.length))) * Math.sqrt(view.scale);
  for (let i = 0; i < data.names.length; i++) {
    const label = data.labels ? data.labels[i] : -1;
    if (hidden.has(label)) continue;
    const [x, y] = place(i);
    context.beginPath();
    context.arc(x, y, i === hovered ? radius + 3 : radius, 0, 7);
    context.fillStyle = colour(label);
    context.globalAlpha = hovered < 0 || i === hovered ? 0.85 : 0.45;
    context.fill();
  }
}

/** Pictures in frames of their class's colour, about as large as there is room for; the one under the pointer on top. */
function drawPictures(context) {
  const n = data.names.length;
  const room = Math.sqrt(canvas.clientWidth * canvas.clientHeight / n);
  const side = Math.max(8, Math.min(64, 0.7 * room)) * Math.sqrt(view.scale);
  const order = Array.from({ length: n }, (_, i) => i).filter((i) => i !== hovered);
  for (const i of hovered < 0 ? order : [...order, hovered]) {
    const label = data.labels ? data.labels[i] : -1;
    if (hidden.has(label)) continue;
    const [x, y] = place(i), s = i === hovered ? 1.6 * side : side, frame = data.labels ? Math.max(1.5, s / 12) : 0;
    context.globalAlpha = 1;
    context.fillStyle = colour(label);
    context.fillRect(x - s / 2 - frame, y - s / 2 - frame, s + 2 * frame, s + 2 * frame);
    const from = [(i % data.columns) * data.side, Math.floor(i / data.columns) * data.side];
    context.drawImage(sprite, ...from, data.side, data.side, x - s / 2, y - s / 2, s, s);
  }
}

function nearest(px, py) {
  let best = -1, distance = 14 ** 2;
  for (let i = 0; i < data.names.length; i++) {
    if (data.labels && hidden.has(data.labels[i])) continue;
    const [x, y] = place(i);
    const d = (x - px) ** 2 + (y - py) ** 2;
    if (d < distance) [best, distance] = [i, d];
  }
  return best;
}

canvas.addEventListener("pointermove", (event) => {
  if (event.buttons) {
    view.x += event.movementX;
    view.y += event.movementY;
    tip.hidden = true;
    return draw();
  }
  const box = canvas.getBoundingClientRect();
  const found = nearest(event.clientX - box.left, event.clientY - box.top);
  if (found !== hovered) {
    hovered = found;
    draw();
  }
  tip.hidden = found < 0;
  if (found < 0) return;
  const picture = tip.querySelector("div");
  const column = found % data.columns, row = Math.floor(found / data.columns);
  picture.style.backgroundImage = `url(${sprite.src})`;
  picture.style.backgroundPosition = `${-column * data.side * 2}px ${-row * data.side * 2}px`;
  picture.style.backgroundSize = `${data.columns * data.side * 2}px auto`;
  const label = data.labels && data.classNames ? data.classNames[data.labels[found]] : "";
  tip.querySelector("p").textContent = `${data.names[found]}${label ? ` (${label})` : ""}`;
  tip.style.left = `${Math.min(event.clientX + 16, innerWidth - 180)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, innerHeight - 180)}px`;
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  const factor = Math.exp(-event.deltaY / 400);
  const fromX = event.clientX - box.left - canvas.clientWidth / 2,
    fromY = event.clientY - box.top - canvas.clientHeight / 2;
  view.x = fromX - (fromX - view.x) * factor;
  view.y = fromY - (fromY - view.y) * factor;
  view.scale *= factor;
  draw();
}, { passive: false });

const layouts = document.getElementById("layouts");
for (const each of data.layouts) {
  const button = document.createElement("button");
  button.textContent = each.name;
  button.setAttribute("aria-pressed", each === layout);
  button.onclick = () => {
    layout = each;
    view = { x: 0, y: 0, scale: 1 };
    for (const other of layouts.children) other.setAttribute("aria-pressed", other === button);
    draw();
  };
  layouts.append(button);
}

const toggle = document.getElementById("pictures");
toggle.setAttribute("aria-pressed", pictures);
toggle.onclick = () => {
  pictures = !pictures;
  toggle.setAttribute("aria-pressed", pictures);
  draw();
};

const legend = document.getElementById("legend");
(data.classNames || []).forEach((name, label) => {
  const button = document.createElement("button");
  button.textContent = name;
  button.style.setProperty("--colour", colour(label));
  button.setAttribute("aria-pressed", "true");
  button.onclick = () => {
    hidden.has(label) ? hidden.delete(label) : hidden.add(label);
    button.setAttribute("aria-pressed", !hidden.has(label));
    draw();
  };
  legend.append(button);
});

addEventListener("resize", draw);
sprite.addEventListener("load", draw);
draw();
