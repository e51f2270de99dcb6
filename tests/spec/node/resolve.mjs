// The runner is written for bun: its imports leave away `.ts`, and its packages may not be installed.
import { registerHooks } from "node:module";
import { pathToFileURL } from "node:url";

const packages = pathToFileURL(`${process.env.PACKAGES}/`).href;

registerHooks({
  resolve(specifier, context, next) {
    try {
      return next(specifier, context);
    } catch {
      const relative = specifier.startsWith(".");
      return relative ? next(`${specifier}.ts`, context) : next(specifier, { ...context, parentURL: packages });
    }
  },
});
