// SPDX-License-Identifier: Apache-2.0
#include "server/render/html_template.h"

namespace limpid::render {

// The policy forbids every request, so that even a mistake in the script could
// send nothing anywhere.
const char kHtmlHead[] = R"html(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline';
               script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>)html";

const char kHtmlBody[] = R"html(</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
       max-width: 64rem; padding: 0 1rem; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; }
td, th { padding: .1rem 1rem .1rem 0; text-align: left; vertical-align: top; }
th { font-weight: 500; color: #555; }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
.bar { display: inline-block; height: .7rem; background: #3465a4; }
#tokens { line-height: 2.1; }
.token { padding: .2rem .15rem; margin: 0 1px; border-radius: 3px;
         white-space: pre-wrap; unicode-bidi: isolate; cursor: default;
         display: inline-block; line-height: 1.3; max-width: 100%;
         font-family: ui-monospace, monospace; }
.token.position { outline: 2px solid #000; }
.token.chosen { outline: 2px dashed #000; }
canvas { border: 1px solid #999; image-rendering: pixelated; max-width: 100%; }
.legend { display: flex; gap: .5rem; align-items: center; color: #555; }
#status { min-height: 1.5em; font-family: ui-monospace, monospace;
          white-space: pre-wrap; }
input[type=range] { width: 20rem; max-width: 60%; vertical-align: middle; }
</style>
</head>
<body>
<h1 id="title"></h1>
<table id="facts"></table>
<section id="prediction"><h2>Prediction</h2>
<table id="candidates"></table></section>
<h2><span id="heading"></span>
<button id="back" hidden>show attribution</button></h2>
<div id="tokens"></div>
<canvas id="patches" hidden></canvas>
<div id="legend" class="legend"></div>
<p id="status"></p>
<section id="layers" hidden><h2>Layers</h2>
<p><label>Layer <input id="slider" type="range" min="0" value="0">
<output id="layer"></output></label></p>
<canvas id="picture"></canvas>
<div id="layer-legend" class="legend"></div>
<p id="hint"></p></section>
<script type="application/json" id="data">)html";

}  // namespace limpid::render
