# The serving image with archives in it: what Kubernetes and Swarm run, where a rollout is one of an image.
#   docker build --file docker/model.Dockerfile --tag suffuse-sentiment:1.0 model_store
ARG SERVING=suffuse:latest
FROM ${SERVING}
COPY *.mar /models/
