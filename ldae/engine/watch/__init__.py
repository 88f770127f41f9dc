# SPDX-License-Identifier: Apache-2.0
"""Logs, progress, scores and pictures of a run while it goes on."""
