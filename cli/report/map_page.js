// The map of images in a browser: pan by dragging, zoom by the wheel, a picture under the pointer, classes to hide.
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

const colour = (label) => label < 0 ? "#8ab" : `hsl(${(label * 137.508) % 360} 70% ${label % 2 ? 55 : 45}%)`;

function place(i) {
  const side = Math.min(canvas.clientWidth, canvas.clientHeight) * 0.46 * view.scale;
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
draw();
