SwaggerUIBundle({
  url: document.getElementById("reference").dataset.description,
  dom_id: "#reference",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // the validator is another site
  syntaxHighlight: { activated: false }, // its colours have too little contrast
});
