# SPDX-License-Identifier: Apache-2.0
from .app import open_page, serving
from .workbench import Panel, Picture, Settings, Workbench
