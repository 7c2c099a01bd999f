# Entry points. Settings come from the environment: SLUICE_NAME, SLUICE_PORT, SLUICE_GATEWAY_PORT, SLUICE_DATA, … (README.md)
.PHONY: help demo demo-spring up down env images test test-full test-spring check docs snapshot venv soak

help:    ## list the targets
	@sed -n 's/^\([a-z-]*\): *## /make \1	/p' Makefile | expand -t 20

demo:    ## install and start everything, then deploy under load and count the requests
	@scripts/demo.sh
demo-spring:  ## the same with Spring Boot behind Spring Cloud Gateway, with each of three registries
	@scripts/demo-spring.sh
up:      ## start or update Sluice and its gateway as containers
	@scripts/up.sh
down:    ## remove everything that up and demo created
	@scripts/down.sh
env:     ## print Sluice's URL and token for a shell: eval "$(make -s env)"
	@scripts/env.sh
images:  ## build the images of Sluice, the gateway and the sample
	@scripts/images.sh
test:    ## run the tests of CI: each story with real components once; installs what it needs (tests/README.md)
	@scripts/test.sh
test-full: ## run every test, and ten minutes of soak
	@SLUICE_TIER=full scripts/test.sh
	@scripts/soak.sh
test-spring: ## run the tests with real Spring Boot applications
	@SLUICE_TIER=full scripts/test.sh -m spring
check:   ## run the quick checks: lint, format, types, import rules, vulnerabilities, tests without an engine
	@scripts/check.sh
docs:    ## build the documentation's site in site/; a warning is an error
	@scripts/docs.sh
snapshot: ## write the snapshot of the public contract (tests/contract/snapshot/) from the code
	@.venv/bin/python -m tests.contract.public_contract >/dev/null
venv:    ## create the virtual environment with the locked packages
	@scripts/venv.sh
soak:    ## make random changes and faults under load, with checks after each: MINUTES=10 SEED= RATE=40
	@scripts/soak.sh
