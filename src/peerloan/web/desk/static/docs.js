SwaggerUIBundle({
  url: document.getElementById("reference").dataset.description,
  dom_id: "#reference",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // it would ask another site
  syntaxHighlight: { activated: false }, // its colours are too faint
});
