# docker build --tag pullpass .
#
# You can replace both base images, for example to use a mirror or a digest:
#   docker build --build-arg BUILD_IMAGE=... --build-arg RUNTIME_IMAGE=... .
# BUILD_IMAGE must contain Node 24 and npm. RUNTIME_IMAGE must contain glibc and libstdc++ for the same
# architecture. It needs no shell.
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
# With the ending .mjs, Node loads the file as a module without a package.json.
COPY --from=build /build/dist/pullpass.js /app/pullpass.mjs
ENV NODE_ENV=production
# Buffers and TLS connections use memory of glibc. By default, glibc keeps this memory in many arenas and does not
# give it back.
ENV MALLOC_ARENA_MAX=2
ENV MALLOC_MMAP_THRESHOLD_=65536
ENV MALLOC_TRIM_THRESHOLD_=131072
# A numeric user, so that Kubernetes can check that it is not root.
USER 65532:65532
EXPOSE 8443 8081
# There is no source map, because it needs 100 MB of memory at every start. `scripts/frames.ts` translates stack traces.
# --disable-sigusr1: the signal would open a debugger for every process in the pod. --max-semi-space-size: Node collects
# garbage early; by default, the garbage of large objects can exceed the memory limit.
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--max-semi-space-size=2", "/app/pullpass.mjs"]
CMD ["serve", "--config", "/etc/pullpass/config/config.yaml"]
