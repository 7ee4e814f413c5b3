// The library in Chromium and Firefox, with browsers that these share.

import './rules.mjs';
import './held.mjs';
import './streams.mjs';
