# docker build --tag pullpass .
#
# Both base images can be replaced, by a mirror of them or pinned by digest:
#   docker build --build-arg BUILD_IMAGE=... --build-arg RUNTIME_IMAGE=... .
# BUILD_IMAGE has Node 24 with npm, RUNTIME_IMAGE glibc and libstdc++ for the same machine. It needs no shell.
ARG BUILD_IMAGE=docker.io/library/node:24-bookworm-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY scripts/bundle.ts scripts/
COPY src src/
RUN node scripts/bundle.ts \
  && node -e "fs.copyFileSync(process.execPath, 'dist/node')"

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pullpass" \
  org.opencontainers.image.description="Kubernetes admission webhook that gives pods what they need to pull from an IBM Bluemix Dedicated registry" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"
COPY --from=build /build/dist/node /usr/local/bin/node
# The ending tells Node that it is a module: there is no package.json beside it.
COPY --from=build /build/dist/pullpass.js /app/pullpass.mjs
ENV NODE_ENV=production
# Buffers and TLS connections are glibc's memory, which by default it keeps in many arenas once it has grown.
ENV MALLOC_ARENA_MAX=2
ENV MALLOC_MMAP_THRESHOLD_=65536
ENV MALLOC_TRIM_THRESHOLD_=131072
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8443 8081
# No source map: it costs 100 MB of memory at every start. `scripts/frames.ts` names the lines of a stack afterwards.
# SIGUSR1 would open a debugger to everybody in the pod. A small space for new objects makes Node collect garbage early:
# by default it lets the garbage of large objects grow beyond the memory limit.
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--max-semi-space-size=2", "/app/pullpass.mjs"]
CMD ["serve", "--config", "/etc/pullpass/config/config.yaml"]
