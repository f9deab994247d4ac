"""What every group of commands needs: the settings, and who asks."""

import getpass
import os

import click

from pdm_assets.settings import SettingError, Settings


def settings() -> Settings:
    """The settings of the environment; a wrong one is said plainly."""
    try:
        return Settings.from_environ(os.environ)
    except SettingError as error:
        raise click.ClickException(str(error)) from error


def user() -> str:
    """Who asks, to be kept with what was asked for."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"number {os.getuid()}"  # a container's user without a name
