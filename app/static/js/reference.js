// The API's reference: Swagger UI on Sluice's own OpenAPI document.
"use strict";

SwaggerUIBundle({ url: "/openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: null });
