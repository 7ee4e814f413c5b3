/** What the call page and the check page share. */

const TOKEN_KEY = 'callbox.token';

export const $ = (id) => document.getElementById(id);

/** The access token lasts as long as the tab, and stays out of the address bar, where it would be shared with a room's link. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY) || null,
  keep: (value) => sessionStorage.setItem(TOKEN_KEY, value),
};

/** Why the browser withholds camera and microphone, and where this page is secure: the box writes down where it listens for its own machine. */
export function insecureText(t) {
  const { local } = document.documentElement.dataset;
  return local ? t('insecure', { local }) : t('insecureOnly');
}

export function makeElement(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}
