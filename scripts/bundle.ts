import { build } from 'esbuild'

/**
 * How Node runs the program in the image. SIGUSR1 would open a debugger to everybody in the pod.
 * With a small space for new objects, garbage is collected early: by default, Node lets the garbage
 * of large objects grow beyond the memory limit of the container.
 */
export const nodeFlags = ['--disable-sigusr1', '--max-semi-space-size=2']

/**
 * Makes the whole program in one file, and its source map beside it. As one file it starts in half
 * the time and memory that it takes to load the same modules one by one. `entryPoint` and `outfile`
 * are paths.
 */
export async function bundle(entryPoint: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [entryPoint],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // Beside the program and not named in it, so that the process never loads it.
    sourcemap: 'external',
    minifyWhitespace: true,
    legalComments: 'eof',
    // Some dependencies are CommonJS and `require` what Node brings with it: a module has no `require`.
    banner: {
      js: "import { createRequire } from 'node:module'\nconst require = createRequire(import.meta.url)",
    },
    logLevel: 'warning',
  })
}

if (import.meta.main) await bundle('src/main.ts', 'dist/pullpass.js')
