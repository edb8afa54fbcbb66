'use strict';
// The page launches by itself, as soon as somebody looks at it. A form that is
// submitted while its page loads adds no entry to the history, so the Back button does
// not launch again.
(() => {
  const texts = JSON.parse(document.getElementById('texts').textContent);
  const form = document.getElementById('launch');
  const button = form.querySelector('button');
  const message = document.getElementById('message');
  const launch = () => {
    message.textContent = texts['Launching …'];
    button.disabled = true;
    form.submit();
  };
  addEventListener('pageshow', (event) => {
    if (event.persisted) { // the visitor came back
      message.textContent = '';
      button.disabled = false;
    }
  });
  const [navigation] = performance.getEntriesByType('navigation');
  if (navigation && (navigation.type === 'reload' || navigation.type === 'back_forward')) {
    return;
  }
  if (document.prerendering) {
    document.addEventListener('prerenderingchange', launch, { once: true });
  } else {
    launch();
  }
})();
