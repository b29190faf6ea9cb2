"""Results and architectures, made readable: tables, trees and figures."""
